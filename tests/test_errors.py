"""What a mistake is told, and what no call ever does behind the caller's back."""

import random
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip._core import rows

N, D, M = 640, 32, 8  # enough rows for 16 centroids without a warning

Call = Callable[[], object]


def randn(n: int, d: int = D) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return randn(N)


@pytest.fixture(scope="module")
def codec(x: Tensor) -> gpuzip.ProductQuantizer:
    return gpuzip.ProductQuantizer(m=M, nbits=4).fit(x)


@pytest.fixture(scope="module")
def codes(x: Tensor, codec: gpuzip.ProductQuantizer) -> gpuzip.Codes:
    return codec.encode(x)


def check_refused(call: Call, match: str, error: type[Exception] = gpuzip.GpuzipError) -> None:
    with pytest.raises(error, match=match) as caught:
        call()
    assert type(caught.value) is error


def takers(codec: gpuzip.ProductQuantizer, codes: gpuzip.Codes, bad: Any) -> dict[str, Call]:
    """Every public call that takes rows, on these."""
    return {
        "fit": lambda: gpuzip.ProductQuantizer(m=M, nbits=4).fit(bad),
        "compress": lambda: gpuzip.compress(bad),
        "quantize": lambda: gpuzip.quantize(bad),
        "save": lambda: gpuzip.save(bad, "never-written.ezip"),
        "encode": lambda: codec.encode(bad),
        "search": lambda: codes.search(bad, 1),
        "quality": lambda: codes.quality(bad),
        "Codes.save": lambda: codes.save("never-written.ezip", bad),
    }


TAKERS = ["fit", "compress", "quantize", "save", "encode", "search", "quality", "Codes.save"]


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2, 3, 4), ()])
def test_rows_of_the_wrong_rank_are_refused_with_their_shape(codec, codes, taker: str, shape: tuple):
    call = takers(codec, codes, torch.zeros(shape))[taker]
    check_refused(call, rf"must be 2-D \(N, D\); got shape {re.escape(str(shape))}")


@pytest.mark.parametrize("taker", [name for name in TAKERS if name != "search"])
def test_one_row_alone_is_no_matrix(codec, codes, taker: str):
    check_refused(takers(codec, codes, torch.zeros(D))[taker], r"2-D \(N, D\); got shape \(32,\)")


@pytest.mark.parametrize("taker", ["encode", "search", "quality", "Codes.save"])
@pytest.mark.parametrize("d", [1, D - 1, D + 1])
def test_rows_of_another_width_are_refused_with_both(codec, codes, taker: str, d: int):
    call = takers(codec, codes, torch.zeros(3, d))[taker]
    check_refused(call, f"must have {D} columns, as this codec was fitted on; got {d}. Fit one on {d}, or")


def test_one_query_of_another_width_is_refused(codes: gpuzip.Codes):
    check_refused(
        lambda: codes.search(torch.zeros(7)),
        "queries must have 32 columns, as this codec was fitted on; got 7",
    )


@pytest.mark.parametrize("taker", TAKERS)
def test_rows_without_columns_are_refused(codec, codes, taker: str):
    check_refused(
        takers(codec, codes, torch.zeros(700, 0))[taker], r"at least one column; got shape \(700, 0\)"
    )


DTYPES = [torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
NUMPY = [np.int64, np.uint16, np.bool_, np.complex128, np.str_, np.object_, "datetime64[s]"]


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_that_is_not_of_floats_is_refused(codec, codes, taker: str, dtype: torch.dtype):
    name = str(dtype).removeprefix("torch.")
    call = takers(codec, codes, torch.zeros(3, D, dtype=dtype))[taker]
    check_refused(call, rf"must be float16.*; got {name}\. .*x\.float\(\)", gpuzip.DtypeError)


@pytest.mark.parametrize("dtype", NUMPY, ids=str)
def test_an_array_that_is_not_of_floats_is_refused(codec, codes, dtype: Any):
    array = np.zeros((3, D), dtype)
    for call in takers(codec, codes, array).values():
        check_refused(
            call,
            re.escape(f"must be float16, bfloat16, float32 or float64; got {array.dtype.name}."),
            gpuzip.DtypeError,
        )


NO_MATRICES: list[Any] = [None, 3.0, "rows", b"rows", {}, object()]
STRANGE = [
    (taker, bad) for taker in TAKERS for bad in NO_MATRICES if not (taker == "Codes.save" and bad is None)
]


@pytest.mark.parametrize(("taker", "bad"), STRANGE, ids=lambda v: v if v in TAKERS else type(v).__name__)
def test_what_is_neither_tensor_nor_array_is_refused(codec, codes, taker: str, bad: object):
    kind = type(bad).__name__
    check_refused(
        takers(codec, codes, bad)[taker],
        rf"must be a torch tensor, a numpy array, or rows of numbers; got {kind}\.",
        gpuzip.DtypeError,
    )


def test_a_dtype_error_is_a_value_error_and_a_type_error():
    assert issubclass(gpuzip.DtypeError, TypeError) and issubclass(gpuzip.DtypeError, ValueError)
    ours = [getattr(gpuzip, name) for name in gpuzip.__all__ if name.endswith("Error")]
    assert len(ours) == 7
    assert all(issubclass(error, gpuzip.GpuzipError) and issubclass(error, ValueError) for error in ours)


def spoiled(value: float, row: int, n: int = N) -> Tensor:
    x = randn(n)
    x[row, 5] = value
    return x


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_holds_nan_or_inf_is_named(codec, codes, taker: str, value: float):
    check_refused(takers(codec, codes, spoiled(value, 421))[taker], "row 421 holds NaN or inf")


@pytest.mark.parametrize("taker", ["encode", "quality", "Codes.save"])
@pytest.mark.parametrize("kind", [torch.Tensor.clone, torch.Tensor.numpy], ids=["tensor", "array"])
def test_a_row_beyond_the_first_block_is_named_too(codec, codes, taker: str, kind, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 100 * 4 * D)
    call = takers(codec, codes, kind(spoiled(float("nan"), 421)))[taker]
    check_refused(call, "row 421 holds NaN or inf")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [torch.Tensor.clone, torch.Tensor.numpy], ids=["tensor", "array"])
def test_a_row_of_a_training_sample_is_named_by_its_place_in_the_whole(kind, value: float):
    x = randn(4 * N)
    x[2 * N :, 3] = value
    pq = gpuzip.ProductQuantizer(m=M, nbits=4)
    with pytest.raises(gpuzip.GpuzipError, match="holds NaN or inf") as caught:
        pq.fit(kind(x), max_points_per_centroid=40)
    named = re.search(r"row (\d+)", str(caught.value))
    assert named is not None
    assert int(named[1]) >= 2 * N


@pytest.mark.parametrize("nbits", [4, 8])
@pytest.mark.parametrize("scale", [1e25, 1e30, 1e38])
def test_finite_values_whose_squares_overflow_are_refused_by_row(nbits: int, scale: float):
    x = randn(10_000, 4)
    x[17] = torch.tensor([1.0, -1.0, 0.5, 0.25]) * scale
    check_refused(lambda: gpuzip.compress(x, m=2, nbits=nbits), "row 17 .*too large")


def test_finite_values_beyond_float32_are_not_called_infinite(codec, codes):
    x = randn(N).double()
    x[17] = 1e300
    for call in takers(codec, codes, x).values():
        check_refused(call, "row 17 .*too large")


@pytest.mark.parametrize("n", [0, 1])
def test_no_rows_train_nothing(n: int):
    check_refused(lambda: gpuzip.compress(randn(n)), f"x must have at least 16 rows for nbits=4; got {n}")


@pytest.mark.parametrize(
    ("n", "nbits", "most"), [(15, 4, 3), (2, 4, 1), (8, 4, 3), (255, 8, 7), (600, 16, 9)]
)
def test_fewer_rows_than_centroids_are_told_what_they_can_train(n: int, nbits: int, most: int):
    pq = gpuzip.ProductQuantizer(m=M, nbits=nbits)
    check_refused(
        lambda: pq.fit(randn(n)),
        f"x must have at least {1 << nbits} rows for nbits={nbits}; got {n}.*<={most}",
    )
    with pytest.warns(UserWarning, match="x should have at least"):
        assert gpuzip.ProductQuantizer(m=M, nbits=most).fit(randn(n)).is_fitted


@pytest.mark.parametrize(
    ("m", "near"),
    [(5, "4, 8, 2"), (3, "4, 2, 1"), (31, "32, 16, 8"), (33, "32, 16, 8"), (10**6, "32, 16, 8")],
)
def test_an_m_that_does_not_divide_is_told_which_do(x: Tensor, m: int, near: str):
    for call in (gpuzip.compress, gpuzip.quantize, partial(gpuzip.save, path="never-written.ezip")):
        check_refused(partial(call, x, m=m), f"m must divide d=32; got {m}. Use m={near}.*pad=True")


@pytest.mark.parametrize("m", [0, -1, 2.0, 2.5, "8", True, [8], torch.tensor(8.0)], ids=repr)
def test_an_m_that_is_no_positive_whole_number_is_refused(x: Tensor, m: Any):
    for call in (lambda: gpuzip.ProductQuantizer(m=m), lambda: gpuzip.compress(x, m)):
        check_refused(call, rf"m must be a whole number of at least 1; got {re.escape(repr(m))}")


@pytest.mark.parametrize("nbits", [0, 17, -4, 4.0, "4", True, None, [4]], ids=repr)
def test_nbits_out_of_range_are_refused(x: Tensor, nbits: Any):
    for call in (lambda: gpuzip.ProductQuantizer(nbits=nbits), lambda: gpuzip.quantize(x, nbits=nbits)):
        check_refused(call, rf"nbits must be a whole number from 1 to 16; got {re.escape(repr(nbits))}")


@pytest.mark.parametrize("k", [0, -1, True, False, 2.5, 3.0, "3", None], ids=repr)
def test_a_k_that_is_no_positive_whole_number_is_refused(codes: gpuzip.Codes, x: Tensor, k: Any):
    match = rf"k must be a whole number of at least 1; got {re.escape(repr(k))}"
    check_refused(lambda: codes.search(x[:3], k), match)


def test_whole_numbers_of_numpy_are_whole_numbers(codes: gpuzip.Codes, x: Tensor, tmp_path: Path):
    assert codes.search(x[:3], np.int64(5))[1].shape == (3, 5)
    same = gpuzip.compress(x, m=np.int32(M), nbits=np.uint8(4), seed=np.int64(0))
    assert torch.equal(same.data, codes.data)
    assert same.save(tmp_path / "a.ezip", x) == gpuzip.info(tmp_path / "a.ezip")


@pytest.mark.parametrize("k", [N, N + 1, 10**9, 2**70])
def test_k_is_clamped_to_the_rows_there_are(codes: gpuzip.Codes, x: Tensor, k: int):
    values, ids = codes.search(x[:3], k)
    assert values.shape == ids.shape == (3, N)
    assert torch.equal(ids.sort(1).values, torch.arange(N).expand(3, N))
    assert codes[:0].search(x[:3], k)[1].shape == (3, 0)


@pytest.mark.parametrize("metric", ["dot", "L2", "", None, 2, ["l2"]], ids=repr)
def test_an_unknown_metric_is_told_the_known_ones(codes: gpuzip.Codes, x: Tensor, metric: Any):
    match = rf"metric must be one of l2, ip, cosine; got {re.escape(repr(metric))}"
    check_refused(lambda: codes.search(x, 3, metric), match)
    check_refused(lambda: codes.search(x[0], 3, metric), match)


UNFITTED: dict[str, Callable[[gpuzip.ProductQuantizer], object]] = {
    "encode": lambda pq: pq.encode(randn(20)),
    "encode nothing": lambda pq: pq.encode(randn(0)),
    "decode": lambda pq: pq.decode_block(torch.zeros(1, 4, dtype=torch.uint8)),
    "Codes": lambda pq: gpuzip.Codes(pq, torch.zeros(1, 4, dtype=torch.uint8)),
    "to_faiss": gpuzip.to_faiss,
    "to": lambda pq: pq.to("cpu"),
    "d": lambda pq: pq.d,
    "centroids": lambda pq: pq.centroids,
    "code_size": lambda pq: pq.code_size,
    "nbytes": lambda pq: pq.nbytes,
    "state": lambda pq: pq.state(),
    "config": lambda pq: pq.config(),
}


@pytest.mark.parametrize("name", UNFITTED)
def test_an_unfitted_codec_asks_to_be_fitted(name: str):
    if name == "to_faiss":
        pytest.importorskip("faiss")
    call = UNFITTED[name]
    match = r"this ProductQuantizer is not fitted. Call \.fit\(x\) and use what it returns"
    check_refused(lambda: call(gpuzip.ProductQuantizer(m=8)), match, gpuzip.NotFittedError)


def test_fit_leaves_its_codec_unfitted(x: Tensor):
    pq = gpuzip.ProductQuantizer(m=M, nbits=4)
    assert pq.fit(x).is_fitted
    assert not pq.is_fitted


def test_codes_of_the_wrong_width_or_dtype_are_refused(codec: gpuzip.ProductQuantizer):
    bad = [
        (torch.zeros(3, 5, dtype=torch.uint8), r"\(3, 5\) uint8"),
        (torch.zeros(4, dtype=torch.uint8), r"\(4,\) uint8"),
        (torch.zeros(3, 4, 1, dtype=torch.uint8), r"\(3, 4, 1\) uint8"),
        (torch.zeros(3, 4, dtype=torch.int64), r"\(3, 4\) int64"),
    ]
    for data, match in bad:
        check_refused(
            partial(gpuzip.Codes, codec, data), rf"data must be \(N, 4\) uint8 for this codec; got {match}"
        )


def test_codes_of_two_codecs_are_not_concatenated(x: Tensor, codes: gpuzip.Codes):
    others = [gpuzip.compress(x, m) for m in (4, 16)] + [gpuzip.compress(x, M, seed=1)]
    for other in others:
        check_refused(partial(gpuzip.cat, [codes, codes, other]), "cat: parts must come from one codec")
    check_refused(lambda: gpuzip.cat([]), "cat: at least one Codes must be given")


def test_devices_are_never_mixed_in_silence(codec, codes, x: Tensor):
    away = x.to("meta")
    check_refused(
        lambda: codes.search(away), r"queries must be on cpu like the codec; got meta. Move one with \.to\(\)"
    )
    check_refused(lambda: codes.search(away[0]), r"queries must be on cpu like the codec; got meta")
    check_refused(
        lambda: codec.encode(away), r"x must be on cpu like the codec; got meta. Move one with \.to\(\)"
    )
    elsewhere = gpuzip.Codes(codec, codes.data.to("meta"))
    check_refused(lambda: gpuzip.cat([codes, elsewhere]), r"cat: .*cpu and meta. Use \.to\(\)")


def test_quality_is_of_the_rows_that_were_encoded(codes: gpuzip.Codes, x: Tensor):
    check_refused(lambda: codes.quality(x[:3]), f"x must have {N} rows, one per code; got 3")


@pytest.mark.parametrize("index", [N, -N - 1])
def test_a_row_that_is_not_there_is_an_index_error(codes: gpuzip.Codes, index: int):
    check_refused(
        lambda: codes[index],
        f"row must be from -{N} to {N - 1}, as there are {N} rows; got {index}",
        IndexError,
    )


WRONG: list[Any] = [-1, 1.5, "2", None, True]
INITS: list[tuple[Any, str]] = [
    ("kmeans", r"init must be 'random', 'kmeans\+\+' or a tensor of centroids; got 'kmeans'"),
    (None, r"init must be 'random', 'kmeans\+\+' or a tensor of centroids; got None"),
    (torch.zeros(M, 16, 3), r"init must have shape \(8, 16, 4\); got \(8, 16, 3\)"),
    (torch.zeros(16, M, 4), r"init must have shape \(8, 16, 4\); got \(16, 8, 4\)"),
    (torch.full((M, 16, 4), float("nan")), "init must be finite; it holds NaN or inf"),
    (np.zeros((M, 16, 4), np.float32), "tensor of centroids"),
]


@pytest.mark.parametrize(
    ("init", "match"), INITS, ids=lambda v: v if isinstance(v, str) else type(v).__name__
)
def test_a_start_that_kmeans_cannot_use_is_refused(x: Tensor, init: Any, match: str):
    check_refused(lambda: gpuzip.ProductQuantizer(m=M, nbits=4).fit(x, init=init), match)


COUNTS = [(name, value) for name in ("n_iter", "n_init", "max_points_per_centroid") for value in WRONG]


@pytest.mark.parametrize(("name", "value"), [*COUNTS, ("n_init", 0), ("max_points_per_centroid", 0)])
def test_counts_of_training_are_whole_numbers(x: Tensor, name: str, value: Any):
    pq = gpuzip.ProductQuantizer(m=M, nbits=4)
    check_refused(lambda: pq.fit(x, **{name: value}), f"{name} must be .*; got {re.escape(repr(value))}")


def test_nothing_was_written_for_what_was_refused():
    assert not Path("never-written.ezip").exists()


def public_calls(path: Path, queries: Tensor) -> dict[str, Call]:
    """Every public function and method, on something that works."""
    x, pq = randn(N), gpuzip.ProductQuantizer(m=M, nbits=4)
    fitted = pq.fit(x)
    codes = fitted.encode(x)
    codes.save(path, x)
    return {
        "quantize": lambda: gpuzip.quantize(x, m=M),
        "compress": lambda: gpuzip.compress(x, m=M),
        "save": lambda: gpuzip.save(x, path, m=M),
        "load": lambda: gpuzip.load(path),
        "open": lambda: gpuzip.open(path, verify=True)[[3, 5]].decode(),
        "info": lambda: str(gpuzip.info(path)) + repr(codes),
        "fit": lambda: pq.fit(x, n_init=2, max_points_per_centroid=39),
        "kmeans++": lambda: pq.fit(x, init="kmeans++"),
        "empty cells": lambda: pq.fit(x.round().clamp(0, 1)),
        "encode": lambda: fitted.encode(x),
        "decode": lambda: codes.decode(),
        "search": lambda: [codes.search(queries, 5, metric) for metric in ("l2", "ip", "cosine")],
        "search one": lambda: codes.search(queries[0], 5),
        "quality": lambda: codes.quality(x),
        "cat": lambda: gpuzip.cat([codes, codes[:3]]),
        "recall": lambda: gpuzip.recall(torch.zeros(2, 3).long(), torch.zeros(2, 3).long()),
    }


CALLS = [
    *("quantize", "compress", "save", "load", "open", "info", "fit", "kmeans++", "empty cells", "encode"),
    *("decode", "search", "search one", "quality", "cat", "recall"),
]


def random_state() -> tuple[bytes, str, tuple]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate()


@pytest.mark.parametrize("name", CALLS)
def test_no_call_touches_the_global_generators(name: str, tmp_path: Path):
    call = public_calls(tmp_path / "a.ezip", randn(70))[name]
    before = random_state()
    call()
    assert random_state() == before


@pytest.mark.parametrize("name", ["quantize", "compress", "fit", "kmeans++", "empty cells"])
def test_what_is_drawn_does_not_depend_on_the_global_generators(name: str, tmp_path: Path):
    call = public_calls(tmp_path / "a.ezip", randn(70))[name]
    results: list[bytes] = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            result = call()
        tensor = getattr(result, "data" if isinstance(result, gpuzip.Codes) else "centroids", result)
        assert isinstance(tensor, Tensor)
        results.append(tensor.numpy().tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("name", CALLS)
def test_no_call_prints_or_warns(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    call = public_calls(tmp_path / "a.ezip", randn(70))[name]
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in caught] == []


def test_a_fit_on_few_rows_gives_one_warning_whatever_m_and_n_init_are():
    pq = gpuzip.ProductQuantizer(m=32, nbits=4)
    with pytest.warns(UserWarning, match=r"at least 624 rows for 2\*\*4 centroids; got 20") as caught:
        pq.fit(randn(20), n_init=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_few_rows_that_are_their_own_training_set_give_none(tmp_path: Path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gpuzip.compress(randn(20))
        gpuzip.quantize(randn(20))
        gpuzip.save(randn(20), tmp_path / "a.ezip")
    assert caught == []
