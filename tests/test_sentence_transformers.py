"""Compares with sentence-transformers: the same bytes, and its arrays as Codes and back."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import DtypeError, GpuzipError
from gpuzip.interop.sentence_transformers.arrays import PRECISIONS, _bits_on_gpu
from tests.lazy import Lazy

theirs = Lazy("sentence_transformers.util.quantization")

SCALAR = ["int8", "uint8"]
BITS = ["binary", "ubinary"]
DTYPES = [np.float16, np.float32, np.float64]


def same(ours: Any, want: Any) -> None:
    if isinstance(want, list):
        assert isinstance(ours, list) and len(ours) == len(want)
        for one, other in zip(ours, want, strict=True):
            same(one, other)
        return
    ours = ours.cpu().numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.dtype == want.dtype
    np.testing.assert_array_equal(ours, want)


def hard(n: int, d: int, dtype: Any) -> np.ndarray:
    """Return edge cases: step edges, signed zeros, (nearly) constant columns, tiny and large values."""
    rng = np.random.default_rng(n + d)
    x = rng.standard_normal((n, d))
    x[:, 0] = 0.25  # constant
    x[:, 1 % d] = np.where(rng.random(n) < 0.5, 1.0, np.nextafter(np.float32(1), np.float32(2)))
    x[:, 2 % d] = rng.integers(0, 256, n)  # edges of steps
    x[:, 3 % d] = np.where(rng.random(n) < 0.5, 0.0, -0.0)
    x[:, 4 % d] *= 1e-40
    x[:, 5 % d] *= 1e4
    x[:, 6 % d] = np.where(rng.random(n) < 0.5, 1e-300, -1e-300)  # 0 in float32
    return x.astype(dtype)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(300, 13), (128, 16), (1000, 384), (101, 7), (150, 1)])
def test_makes_the_same_bytes_on_edge_cases(precision, dtype, n, d):
    x = hard(n, d, dtype)
    want = theirs.quantize_embeddings(x, precision)
    same(gpuzip.quantize_embeddings(x, precision), want)
    tensor = gpuzip.quantize_embeddings(torch.from_numpy(x), precision)
    assert isinstance(tensor, torch.Tensor)
    same(tensor, want)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_makes_the_same_bytes_on_real_embeddings(real, real_queries, ranges, precision):
    same(gpuzip.quantize_embeddings(real, precision), theirs.quantize_embeddings(real, precision))
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        x = real_queries.to(kind)
        for given in (ranges, ranges.astype(np.float64), ranges * 0.5):  # the last leaves many values out
            same(
                gpuzip.quantize_embeddings(x, precision, given),
                theirs.quantize_embeddings(x, precision, given),
            )


@pytest.mark.parametrize("precision", SCALAR)
@pytest.mark.parametrize("dtype", DTYPES)
def test_makes_the_same_bytes_with_calibration(precision, dtype):
    x, calibration = hard(200, 24, dtype), hard(5, 24, np.float32)
    want = theirs.quantize_embeddings(x, precision, calibration_embeddings=calibration)
    same(gpuzip.quantize_embeddings(x, precision, calibration_embeddings=calibration), want)
    same(gpuzip.quantize_embeddings(x, precision, None, torch.from_numpy(calibration)), want)
    same(gpuzip.quantize_embeddings(x, precision, None, list(calibration)), want)
    assert len(np.unique(want)) > 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_infinite_values_get_the_last_step(precision, ranges):
    x = np.array([[np.inf] * 384, [-np.inf] * 384, [1e38] * 384], np.float32)
    for kind in (np.float32, np.float64):
        with np.errstate(over="ignore"):
            want = theirs.quantize_embeddings(x.astype(kind), precision, ranges)
        same(gpuzip.quantize_embeddings(x.astype(kind), precision, ranges), want)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_quantizes_a_single_row(precision, dtype):
    x, given = hard(3, 13, dtype), hard(2, 13, np.float32)
    given = np.sort(given, 0)
    for row in (x[0], x[:1], list(x[:2]), [x[:1]]):
        want = theirs.quantize_embeddings(row, precision, given)
        same(gpuzip.quantize_embeddings(row, precision, given), want)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("n", [0, 5])
def test_quantizes_lists_and_empty_input(precision, n):
    empty = np.zeros((0, 13), np.float32)
    same(gpuzip.quantize_embeddings(empty, precision), theirs.quantize_embeddings(empty, precision))
    assert gpuzip.quantize_embeddings([], precision) == []
    documents = [hard(120, 13, np.float32), hard(n, 13, np.float32), hard(70, 13, np.float32) * 2]
    want = theirs.quantize_embeddings(documents, precision)
    same(gpuzip.quantize_embeddings(documents, precision), want)
    tensors = gpuzip.quantize_embeddings([torch.from_numpy(x) for x in documents], precision)
    assert all(isinstance(x, torch.Tensor) for x in tensors)
    same(tensors, want)
    rows = list(hard(120, 13, np.float32))
    same(gpuzip.quantize_embeddings(rows, precision), theirs.quantize_embeddings(rows, precision))
    stacked = gpuzip.quantize_embeddings([torch.from_numpy(row) for row in rows], precision)
    assert isinstance(stacked, torch.Tensor)
    same(stacked, theirs.quantize_embeddings(rows, precision))
    same(
        gpuzip.quantize_embeddings([empty, empty], precision),
        theirs.quantize_embeddings([empty] * 2, precision),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_takes_every_memory_layout(real, precision, tmp_path):
    want = theirs.quantize_embeddings(real[:200, :31].numpy(), precision)
    np.save(tmp_path / "x.npy", real[:200, :31].numpy())
    views = [
        np.asfortranarray(real[:200, :31].numpy()),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        real[:200, :31].numpy().astype(">f4"),
        real[:200, :31],
        real[:200, :31].clone().requires_grad_(),
    ]
    for x in views:
        same(gpuzip.quantize_embeddings(x, precision), want)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_takes_bfloat16_arrays(real, precision):
    half = real[:200].numpy().astype(pytest.importorskip("ml_dtypes").bfloat16)
    same(
        gpuzip.quantize_embeddings(half, precision),
        theirs.quantize_embeddings(half.astype(np.float32), precision),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_give_the_same_result(monkeypatch, dtype):
    monkeypatch.setattr("gpuzip.interop.sentence_transformers.arrays.BLOCK_BYTES", 2000)
    x = hard(300, 13, dtype)
    for precision in PRECISIONS:
        same(gpuzip.quantize_embeddings(x, precision), theirs.quantize_embeddings(x, precision))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(300, 13), (128, 16), (0, 7)])
def test_gpu_operators_make_the_same_bits(dtype, n, d):
    x = hard(n, d, dtype)
    same(_bits_on_gpu(torch.from_numpy(x)), theirs.quantize_embeddings(x, "ubinary"))


def test_result_is_not_the_input(real):
    x = real[:3].numpy().copy()
    gpuzip.quantize_embeddings(x, "float32")[:] = 0
    assert x.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_makes_the_same_bytes_on_a_gpu(precision, dtype):
    x = hard(1000, 77, dtype)
    ours = gpuzip.quantize_embeddings(torch.from_numpy(x).cuda(), precision)
    assert ours.is_cuda
    same(ours, theirs.quantize_embeddings(x, precision))


@pytest.mark.parametrize("precision", SCALAR)
def test_warns_once_about_few_rows(real, ranges, precision):
    with pytest.warns(UserWarning, match=f"ranges for {precision} are taken from 99 embeddings") as caught:
        gpuzip.quantize_embeddings(real[:99], precision)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gpuzip.quantize_embeddings(real[:100], precision)
        gpuzip.quantize_embeddings(real[:9], precision, ranges)
        gpuzip.quantize_embeddings(real[:9], precision, None, real[:50])


def refused(match: str, *arguments: Any, error: type[Exception] = GpuzipError, **named: Any) -> None:
    with pytest.raises(error, match=match):
        gpuzip.quantize_embeddings(*arguments, **named)


def test_refuses_invalid_input(real):
    x = real[:200]
    refused(r"precision must be one of float32, int8.*; got 'int4'", x, "int4")
    for single in (x[0], x[:1], [x[0]], [x[:1]], x[0].numpy()):
        refused("a single embedding has no ranges for int8. Pass ranges or", single, "int8")
    for bad in (x.int(), x.to(torch.int8), x.bool(), x.numpy().astype(np.uint8), x.to(torch.complex64)):
        refused(r"embeddings must be float16, bfloat16", bad, "binary", error=DtypeError)
    refused("embeddings must be a torch tensor.*; got str", "text", "int8", error=DtypeError)
    refused("the rows of embeddings must have one shape", [x[0], x[0, :3]], "int8")
    refused("the rows of embeddings must have one shape", [np.zeros(2), np.zeros(3)], "int8")
    refused(r"embeddings must be \(N, D\) or .*; got shape \(1, 200, 384\)", x[None], "int8")
    refused(r"embeddings must be \(N, D\) or .*; got shape \(3, 0\)", torch.zeros(3, 0), "binary")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_refuses_nan(precision, kind):
    x = hard(200, 13, kind)
    x[7, 3] = np.nan
    refused("row 7 of embeddings holds NaN. Drop such rows", x, precision)
    refused("row 0 of embeddings holds NaN", x[7], precision)
    if precision in SCALAR:
        calibration = hard(200, 13, np.float32)
        calibration[199, 0] = np.nan
        refused("row 199 of calibration_embeddings holds NaN", x[:5], precision, None, calibration)


def test_refuses_invalid_ranges(real, ranges):
    x = real[:200]
    for wrong in (ranges[:1], ranges[0], ranges.T, ranges[:, :5], np.zeros((2, 1), np.float32)):
        refused(r"ranges must have shape \(2, 384\).*; got \(.*\)", x, "int8", wrong)
    turned = ranges.copy()
    turned[:, 3] = turned[::-1, 3]
    refused("the range of column 3 must be .* ascending order; got 0.* and -0.", x, "int8", turned)
    for bad in (np.nan, np.inf, 1e39):
        spoiled = ranges.astype(np.float64)
        spoiled[1, 5] = bad
        refused("the range of column 5 must be two finite numbers", x, "int8", torch.from_numpy(spoiled))
    refused("ranges must be numbers of shape", x, "int8", "wide")
    infinite = x.clone()
    infinite[1, 1] = float("inf")
    refused("the range of column 1 must be .*; got .* and inf", infinite, "int8")
    for calibration in (real[:0], real[0]):
        refused(r"calibration_embeddings must be .*at least one row", x, "int8", None, calibration)
    refused(r"ranges must have shape \(2, 384\).*; got \(2, 7\)", x, "int8", None, real[:5, :7])


@pytest.mark.parametrize("precision", SCALAR + BITS)
@pytest.mark.parametrize("d", [384, 77])
def test_round_trip_keeps_the_bytes(real, precision, d):
    x = real[:500, :d]
    given = torch.stack([x.amin(0), x.amax(0)])
    array = theirs.quantize_embeddings(x, precision)
    for one in (array, torch.from_numpy(array)):
        codes = gpuzip.from_sentence_transformers(one, precision, given if precision in SCALAR else None, d)
        assert codes.shape == (500, d)
        same(gpuzip.to_sentence_transformers(codes, precision), array)
        other = {"int8": "uint8", "uint8": "int8", "binary": "ubinary", "ubinary": "binary"}[precision]
        same(gpuzip.to_sentence_transformers(codes, other), theirs.quantize_embeddings(x, other))
    same(gpuzip.to_sentence_transformers(codes, "float32"), codes.decode().numpy())
    same(gpuzip.to_sentence_transformers(codes.codec.encode(x), precision), array)


@pytest.mark.parametrize("precision", SCALAR)
def test_decodes_a_code_to_the_middle_of_its_step(real, precision):
    x = real[:500].double()
    x[:, 3], x[:, 4] = 0.75, 1 + torch.arange(500) / 500 * 2e-6  # constant, and of the fewest float32 values
    given = torch.stack([x.amin(0), x.amax(0)]).float()
    codes = gpuzip.from_sentence_transformers(theirs.quantize_embeddings(x, precision), None, given)
    off = (codes.decode() - x).abs()
    assert bool((off <= (given[1] - given[0]) / 255 * 0.5 + 2e-7).all())
    assert bool((codes.decode()[:, 3] == 0.75).all())


def test_own_codecs_make_the_same_arrays(real, ranges):
    fitted = gpuzip.ScalarQuantizer(range=(ranges[0], ranges[1]), steps=255).fit(real)
    signed = gpuzip.ScalarQuantizer(range=(ranges[0], ranges[1]), steps=255, signed=True).fit(real)
    bits = gpuzip.BinaryQuantizer().fit(real)
    for precision in SCALAR:
        want = theirs.quantize_embeddings(real, precision)
        same(gpuzip.to_sentence_transformers(fitted.encode(real), precision), want)
        same(gpuzip.to_sentence_transformers(signed.encode(real), precision), want)
    for precision in BITS:
        want = theirs.quantize_embeddings(real, precision)
        same(gpuzip.to_sentence_transformers(bits.encode(real), precision), want)


def test_infers_the_precision_if_only_one_fits(real, ranges):
    def codec(*arguments: Any) -> type:
        return type(gpuzip.from_sentence_transformers(*arguments).codec)

    numbers, bits = np.zeros((3, 384), np.int8), np.zeros((3, 48), np.uint8)
    assert codec(numbers, None, ranges) is gpuzip.ScalarQuantizer
    assert codec(bits, None, None, 384) is gpuzip.BinaryQuantizer
    assert codec(bits, None, None, 377) is gpuzip.BinaryQuantizer
    assert codec(numbers, "binary") is gpuzip.BinaryQuantizer


CANNOT_BE_READ: list[tuple[str, tuple[Any, ...]]] = [
    ("array must be int8 or uint8; got float32. Make it with", (np.zeros((3, 4), np.float32),)),
    ("array must be a torch tensor.*; got NoneType", (None,)),
    (r"array must be 2-D \(N, B\); got shape \(4,\)", (np.zeros(4, np.uint8),)),
    ("array of uint8 may be uint8 or ubinary. Pass precision", (np.zeros((3, 4), np.uint8),)),
    ("array of int8 may be int8 or binary", (np.zeros((3, 1), np.int8), None, None, 1)),
    ("array of int8 cannot be decoded without ranges", (np.zeros((3, 4), np.int8), "int8")),
    (
        "precision must be 'int8' or 'binary' for array of int8; got 'ubinary'",
        (np.zeros((3, 4), np.int8), "ubinary"),
    ),
    ("precision must be .*; got 'int4'", (np.zeros((3, 4), np.int8), "int4")),
    (
        "array must have 7 columns for uint8 or 1 for ubinary, as d=7; got 4 columns",
        (np.zeros((3, 4), np.uint8), None, None, 7),
    ),
    (
        r"ranges must have shape \(2, 4\).*; got \(2, 3\)",
        (np.zeros((3, 4), np.uint8), None, np.zeros((2, 3))),
    ),
]


@pytest.mark.parametrize(
    ("match", "arguments"), CANNOT_BE_READ, ids=lambda v: v if isinstance(v, str) else ""
)
def test_refuses_ambiguous_or_invalid_arrays(match, arguments):
    with pytest.raises(GpuzipError, match=match):
        gpuzip.from_sentence_transformers(*arguments)


def test_refuses_codes_of_another_kind(real):
    codes = gpuzip.ScalarQuantizer(4).fit(real).encode(real[:5])
    with pytest.raises(
        GpuzipError, match=r"ScalarQuantizer\(bits=4.* have no int8. ScalarQuantizer\(bits=8\)"
    ):
        gpuzip.to_sentence_transformers(codes, "int8")
    with pytest.raises(GpuzipError, match=r"have no ubinary"):
        gpuzip.to_sentence_transformers(codes, "ubinary")
    with pytest.raises(GpuzipError, match=r"BinaryQuantizer\(.* have no uint8"):
        gpuzip.to_sentence_transformers(gpuzip.BinaryQuantizer().fit(real).encode(real[:5]), "uint8")
    with pytest.raises(GpuzipError, match=r"precision must be one of float32.*; got 'int3'"):
        gpuzip.to_sentence_transformers(codes, "int3")


WIDER = [np.int64, np.int16, np.uint32, np.dtype(">i4")]


@pytest.mark.parametrize("wide", [*WIDER, torch.int64, list])
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_wider_integers_are_cast_where_no_value_is_lost(real, precision, wide):
    x = real[:200]
    array = gpuzip.quantize_embeddings(x.numpy(), precision)
    ranges = torch.stack([x.amin(0), x.amax(0)]) if precision in ("int8", "uint8") else None
    if wide is list:
        given = array.tolist()
    else:
        given = torch.from_numpy(array).to(wide) if isinstance(wide, torch.dtype) else array.astype(wide)
    if precision in ("int8", "binary") and wide is np.uint32:
        with pytest.raises(gpuzip.DtypeError, match=r"must be .*; got uint32 from"):
            gpuzip.from_sentence_transformers(given, precision, ranges)
        return
    want = gpuzip.from_sentence_transformers(array, precision, ranges)
    for named in (precision, None) if ranges is not None else (precision,):
        codes = gpuzip.from_sentence_transformers(given, named, ranges)
        assert torch.equal(codes.data, want.data)
    hits = gpuzip.semantic_search(x[:3], given, 3, precision=precision, ranges=ranges)
    assert hits == gpuzip.semantic_search(x[:3], array, 3, precision=precision, ranges=ranges)
    assert gpuzip.semantic_search(given[:3], want, 3) == gpuzip.semantic_search(array[:3], want, 3)


@pytest.mark.parametrize(
    ("values", "precision", "match"),
    [
        ([[300, 0]], None, r"array must be uint8, 0 to 255; got int64 from 0 to 300\. Make it with"),
        ([[-1, 200]], None, "array must be int8, -128 to 127; got int64 from -1 to 200"),
        ([[-1, 3]], "uint8", "array must be uint8, 0 to 255; got int64 from -1 to 3"),
        ([[1, 3]], None, "array must be int8 or uint8; got int64 whose values may be either"),
    ],
)
def test_wider_integers_that_are_no_bytes_are_refused(values, precision, match):
    with pytest.raises(gpuzip.DtypeError, match=match):
        gpuzip.from_sentence_transformers(np.array(values, np.int64), precision)
