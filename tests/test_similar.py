"""The notebook's question: which vectors are most like this one?"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import GpuzipError, most_similar

CODECS = [
    gpuzip.ProductQuantizer(m=48, nbits=4),
    gpuzip.ScalarQuantizer(),
    gpuzip.BinaryQuantizer(),
    gpuzip.HalfQuantizer(),
]


def notebook(name, vectors):
    """Its own words, with cosines in float64."""

    def cosine(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return a @ b / np.sqrt((a @ a) * (b @ b))

    found = {label: cosine(vectors[name], vector) for label, vector in vectors.items()}
    return sorted(found.items(), key=lambda pair: pair[1], reverse=True)


def one_byte(vector):
    return (np.clip(np.array(vector) + 1, 0, 2) * 127).astype(np.uint8)


@pytest.fixture(scope="module")
def movies(real):
    return {f"movie {i}": vector.tolist() for i, vector in enumerate(real[:300])}


FORMS: dict[str, Callable[[list[float]], Any]] = {
    "lists": lambda v: v,
    "float64": np.array,
    "float16": lambda v: np.array(v, np.float16),
    "uint8": one_byte,
    "int8": lambda v: (np.array(v) > 0).astype(np.int8),
    "bool": lambda v: np.array(v) > 0,
    "tensors": torch.tensor,
    "bfloat16": lambda v: torch.tensor(v).bfloat16(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_dict_is_answered_as_in_the_notebook(movies, form):
    vectors = {label: FORMS[form](vector) for label, vector in movies.items()}
    plain = {k: (v.double().numpy() if isinstance(v, torch.Tensor) else v) for k, v in vectors.items()}
    want = dict(notebook("movie 7", plain))
    found = most_similar("movie 7", vectors)
    assert len(found) == 10
    assert found[0][0] == "movie 7"
    assert [score for _, score in found] == pytest.approx(sorted(want.values(), reverse=True)[:10], abs=1e-6)
    assert [want[label] for label, _ in found] == pytest.approx([score for _, score in found], abs=1e-6)
    assert len({label for label, _ in found}) == 10
    assert most_similar(7, vectors) == found


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_codes_are_answered_by_their_decoded_rows(real, codec, metric):
    codes = codec.fit(real[:1000]).encode(real[:1000])
    rows = codes.decode()
    vectors = dict(enumerate(rows))
    found = most_similar(5, codes, 20, metric=metric)
    want = most_similar(5, vectors, 20, metric=metric)
    assert found[0][0] == 5
    assert [score for _, score in found] == pytest.approx([score for _, score in want], rel=1e-4, abs=1e-4)
    labels = [f"text {i}" for i in range(1000)]
    assert most_similar("text 5", codes, 20, labels, metric) == [(labels[i], score) for i, score in found]
    assert most_similar(5, codes, 20, labels, metric)[3] == (labels[found[3][0]], found[3][1])
    assert most_similar(-995, codes, 20, metric=metric) == found


def test_bits_by_hamming(real):
    codes = gpuzip.BinaryQuantizer("median").fit(real[:500]).encode(real[:500])
    found = most_similar(9, codes, 500, metric="hamming")
    differing = np.unpackbits(codes.data.numpy() ^ codes.data[9].numpy(), axis=-1).sum(1)
    assert found[0] == (9, 0)
    assert all(differing[i] == score for i, score in found)
    assert [score for _, score in found] == sorted(differing)


def test_the_item_is_first_whatever_is_as_near(real):
    x = real[:1].repeat(30, 1)
    x[20:] *= 4
    codes = gpuzip.HalfQuantizer().fit(x).encode(x)
    assert [label for label, _ in most_similar(15, codes, 3)] == [15, 0, 1]
    assert [label for label, _ in most_similar(15, dict(enumerate(x)), 3)] == [15, 0, 1]
    for vectors in (codes, dict(enumerate(x))):
        found = most_similar(15, vectors, 3, metric="ip")
        assert [label for label, _ in found] == [15, 20, 21]
        assert [score for _, score in found] == pytest.approx([1, 4, 4], rel=1e-3)
        assert most_similar(15, vectors, 1, metric="ip") == found[:1]
        assert len(most_similar(15, vectors, 99)) == 30


def test_a_vector_of_zeros_is_like_none():
    vectors = {"nothing": [0, 0], "x": [1, 0], "y": [0, 1]}
    assert most_similar("nothing", vectors) == [("nothing", 0.0), ("x", 0.0), ("y", 0.0)]
    assert most_similar("x", vectors, metric="l2") == [("x", 0.0), ("nothing", 1.0), ("y", 2.0)]
    assert all(str(score) != "-0.0" for _, score in most_similar("x", vectors, metric="l2"))


def test_of_equal_labels_the_first_is_meant_and_labels_need_not_be_texts(real):
    codes = gpuzip.HalfQuantizer().fit(real[:5]).encode(real[:5])
    labels = ["a", "b", "b", "c", "d"]
    assert most_similar("b", codes, 1, labels)[0][1] == pytest.approx(1)
    assert {label for label, _ in most_similar("b", codes, 5, labels)} == {"a", "b", "c", "d"}
    years = {1999: [1.0, 0.0], 2016: [0.0, 1.0]}
    assert most_similar(2016, years, 1) == [(2016, 1.0)]
    assert most_similar(0, years, 1) == [(1999, 1.0)]


@pytest.mark.parametrize(
    ("match", "item", "changed"),
    [
        ("item must be one of the labels; got 'Mona'. Similar labels: 'Moana'", "Mona", {}),
        ("item must be one of the labels; got 'xyzzy'.", "xyzzy", {}),
        ("item must be the number of one of 3 rows; got 3", 3, {}),
        ("item must be the number of one of 3 rows; got -4", -4, {}),
        (r"k must be a whole number of at least 1.*; got 0", "Moana", {"k": 0}),
        (r"metric must be one of l2, ip, cosine.*; got 'dot'", "Moana", {"metric": "dot"}),
        (
            "labels must not be given with a dict, whose keys are the labels",
            "Moana",
            {"labels": ["a", "b", "c"]},
        ),
        (
            r"the vector of 'Up' must have shape \(2,\) like those before.*; got \(3,\)",
            "Moana",
            {"Up": [1, 2, 3]},
        ),
        (r"the vector of 'Up' must have shape \(2,\) like.*; got \(1, 2\)", "Moana", {"Up": [[1, 2]]}),
        ("the vector of 'Up' must hold numbers", "Moana", {"Up": ["x", "y"]}),
        ("row 2 holds NaN or inf", "Moana", {"Up": [1, float("nan")]}),
    ],
)
def test_what_has_no_answer_is_refused(match, item, changed):
    vectors = {"Moana": [1.0, 0.0], "Frozen": [0.5, 0.5], "Up": changed.pop("Up", [0.0, 1.0])}
    with pytest.raises(GpuzipError, match=match):
        most_similar(item, vectors, **changed)


def test_codes_and_labels_that_do_not_fit_are_refused(real):
    codes = gpuzip.HalfQuantizer().fit(real[:5]).encode(real[:5])
    with pytest.raises(
        GpuzipError, match=r"item must be a row number without labels; got 'Moana'\. Pass labels="
    ):
        most_similar("Moana", codes)
    with pytest.raises(GpuzipError, match="got 2 labels for 5 rows"):
        most_similar("Moana", codes, labels=["Moana", "Up"])
    with pytest.raises(GpuzipError, match=r"metric must be .*; got 'hamming'"):
        most_similar(0, codes, metric="hamming")
    with pytest.raises(
        gpuzip.DtypeError, match="codes must be Codes or a dict of vectors by label; got Tensor"
    ):
        most_similar(0, real)
    with pytest.raises(GpuzipError, match="one of 0 rows; got 0"):
        most_similar(0, {})
