"""Archives: each dial reaches its aim in the bytes of the file, and every way to rows gives the same ones."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

import gpuzip
from gpuzip.archive.archive import Archive
from gpuzip.ops._samples import generator

DIALS: list[dict[str, Any]] = [
    {"min_cosine": 0.95},
    {"bits_per_dim": 6},
    {"max_bytes": 4000},
    {"max_error": 0.01},
    {"max_row_error": 0.1},
    {"lossless": True},
]
OF_EACH = pytest.mark.parametrize("dial", DIALS, ids=lambda dial: next(iter(dial)))


def rows(N: int, D: int, seed: int = 0) -> Tensor:
    return torch.randn(N, D, generator=generator(seed)) * torch.logspace(0, -1, D) + 0.2


def unit_rows(N: int, D: int) -> Tensor:
    return torch.nn.functional.normalize(rows(N, D))


def compressed(x: Any, **settings: Any) -> Archive:
    return gpuzip.TransformCoder(**settings).fit(x).encode(x)


def file_of(archive: Any, x: Any = None) -> bytes:
    out = io.BytesIO()
    archive.save(out, x)
    return out.getvalue()


def check_aim(x: Tensor, archive: Archive, **dial: Any) -> None:
    """Whether the file, or what it decodes to, is what was asked for."""
    data = file_of(archive, x)
    got = gpuzip.open(data).decode()
    assert got.shape == x.shape and got.dtype == x.dtype
    off = (got.double() - x.double()).abs()
    (name, aim), *_ = dial.items()
    if name == "min_cosine":
        quality = gpuzip.open(data, min_cosine=aim).quality(x)
        assert quality is not None and quality.row_cosine >= aim
    elif name == "bits_per_dim":
        assert 8 * len(data) <= aim * x.numel()
    elif name == "max_bytes":
        assert len(data) <= aim
    elif name == "max_error":
        assert off.max() <= aim
    elif name == "max_row_error":
        assert torch.linalg.vector_norm(off, dim=1).max() <= aim
    else:
        assert torch.equal(got.view(torch.uint8), x.view(torch.uint8))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return rows(150, 16)


@pytest.fixture(scope="module")
def archive(x: Tensor) -> Archive:
    """Three blocks, one row of which is kept as it is."""
    y = x.clone()
    y[70] = 1e15
    return compressed(y, max_row_error=0.3, block_rows=64)


@pytest.fixture(
    scope="module", params=[{"max_row_error": 0.3}, {"max_error": 0.1}, {"lossless": True}], ids=str
)
def any_archive(request: pytest.FixtureRequest, x: Tensor) -> Archive:
    return compressed(x, block_rows=64, **request.param)


@OF_EACH
def test_a_dial_reaches_its_aim_on_few_rows(dial, x):
    check_aim(x, compressed(x, **dial), **dial)


@pytest.mark.full
@pytest.mark.parametrize(
    "dial",
    [
        {"min_cosine": 0.9},
        {"min_cosine": 0.999},
        {"bits_per_dim": 1},
        {"bits_per_dim": 4},
        {"max_bytes": 40_000},
        {"max_error": 1e-3},
        {"max_error": 1.2e-7},
        {"max_row_error": 0.2},
        {"lossless": True},
    ],
    ids=str,
)
def test_a_dial_reaches_its_aim_on_real_rows(dial, real):
    x = real[:1000]
    archive = compressed(x, **dial)
    check_aim(x, archive, **dial)
    size = len(file_of(archive, x))
    if "min_cosine" in dial:  # and takes no more than that needs
        quality = archive.quality(x)
        assert quality is not None and 1 - quality.row_cosine > 0.99 * (1 - dial["min_cosine"])
    if "max_bytes" in dial:
        assert size > 0.97 * dial["max_bytes"]
    if "bits_per_dim" in dial:
        assert 8 * size > 0.97 * dial["bits_per_dim"] * x.numel()


@pytest.mark.full
@pytest.mark.parametrize(("bytes_", "cosine"), [(56_372, 0.895), (87_920, 0.955), (216_112, 0.9988)])
def test_cosines_at_the_sizes_of_embzip(bytes_, cosine, real):
    archive = compressed(real[:1000], max_bytes=bytes_)
    quality = archive.quality(real[:1000])
    assert quality is not None and quality.row_cosine >= cosine


SHAPES = [(1, 1), (1, 64), (2, 3), (31, 1), (31, 64), (33, 3), (1000, 1), (1000, 64)]


@pytest.mark.full
@OF_EACH
@pytest.mark.parametrize(("N", "D"), SHAPES)
def test_shapes(N, D, dial):
    x = rows(N, D)
    if "bits_per_dim" in dial:
        dial = {"bits_per_dim": 6 + 8 * 2500 / (N * D)}
    if "max_bytes" in dial:
        dial = {"max_bytes": 4000 + N * D // 2}
    check_aim(x, compressed(x, **dial), **dial)


@pytest.mark.parametrize(("N", "D"), SHAPES[:5])
@pytest.mark.parametrize("dial", [{"max_row_error": 0.2}, {"max_error": 0.01}, {"lossless": True}], ids=str)
def test_shapes_of_few_rows(N, D, dial):
    x = rows(N, D)
    check_aim(x, compressed(x, **dial), **dial)


ODD = {
    "constant columns": torch.cat([rows(100, 8), torch.full((100, 3), 0.7)], 1),
    "equal rows": rows(1, 8).repeat(50, 1),
    "zeros": torch.zeros(50, 8),
    "a row of norm 0": torch.cat([unit_rows(40, 8), torch.zeros(1, 8)]),
    "a huge row": torch.cat([unit_rows(100, 8), torch.full((1, 8), 1e15)]),
    "two huge rows of float64": torch.cat([rows(60, 8), torch.full((2, 8), 1e15)]).double() / 3,
    "float16": rows(60, 8).half(),
    "bfloat16": rows(60, 8).bfloat16(),
    "float64": rows(60, 8).double() / 3,
}


@pytest.mark.full
@OF_EACH
@pytest.mark.parametrize("name", ODD)
def test_odd_rows(name, dial):
    x = ODD[name]
    if "bits_per_dim" in dial:
        dial = {"bits_per_dim": 6 + 8 * 2000 / x.numel()}
    check_aim(x, compressed(x, **dial), **dial)


@pytest.mark.parametrize("name", ODD)
def test_odd_rows_within_an_error(name):
    check_aim(ODD[name], compressed(ODD[name], max_row_error=0.1), max_row_error=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_rows_among_others_are_kept_as_they_were(dtype):
    x = torch.cat([unit_rows(100, 8), torch.full((1, 8), 1e15)]).to(dtype) / 3
    archive = compressed(x, max_row_error=0.1)
    again: Any = gpuzip.open(file_of(archive))
    assert again.kept is not None and again.kept.ids.tolist() == [100]
    assert torch.equal(again.rows([100, -1]), x[[100, 100]])
    assert torch.equal(again[[3, 100]].decode(), again.rows([3, 100]))
    assert len(file_of(archive)) < len(file_of(compressed(x, lossless=True)))


@pytest.mark.parametrize("dial", [{"bits_per_dim": 30}, {"max_bytes": 1100}], ids=str)
def test_files_of_few_rows_have_no_more_bytes_than_were_asked_for(dial):
    x = rows(40, 8)
    check_aim(x, compressed(x, **dial), **dial)


def test_bytes_count_huge_rows_that_no_sample_has(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpuzip.archive.sample._ROWS", 1 << 12)
    x = rows(3000, 16)
    x[::301] *= 1e9
    coder = gpuzip.TransformCoder(max_bytes=9000).fit(x)
    archive = coder.encode(x)
    assert archive.kept is not None and len(archive.kept.ids) == 10
    check_aim(x, archive, max_bytes=9000)
    with pytest.raises(gpuzip.GpuzipError, match=r"at most 9000 were asked for\. Ask for more"):
        coder.encode(torch.cat([x, x[::301].repeat(20, 1)]))


def test_no_matrix_of_axes_is_made_where_columns_are_coded_as_they_are():
    x = torch.randn(300, 64, generator=generator(0))
    archive = compressed(x, min_cosine=0.9)
    again: Any = gpuzip.open(file_of(archive))
    assert again.codec.scheme.basis.shape == (64,)
    assert torch.equal(again.decode(), archive.decode())
    assert torch.nn.functional.cosine_similarity(again.decode(), x).mean() >= 0.9


def test_rows_that_are_not_of_length_one_keep_their_length():
    x = unit_rows(60, 8)
    coder = gpuzip.TransformCoder(min_cosine=0.9).fit(x)
    assert torch.allclose(coder.encode(x).decode().norm(dim=1), torch.ones(60))
    other = torch.cat([x[:3], 2 * x[3:6], torch.zeros(1, 8)])
    archive = coder.encode(other)
    assert torch.equal(archive.rows([3, 4, 5, 6]), other[3:])


def test_rows_other_than_those_fitted(x):
    for dial in ({"max_row_error": 0.3}, {"max_error": 0.1}, {"lossless": True}):
        coder, other = gpuzip.TransformCoder(**dial).fit(x), rows(90, 16, 1) * 3
        check_aim(other, coder.encode(other), **dial)


def test_no_rows(x, any_archive):
    empty = any_archive.codec.encode(x[:0])
    again = gpuzip.open(file_of(empty))
    assert len(again) == 0 and again.decode().shape == (0, 16) and again.rows([]).shape == (0, 16)
    assert any_archive[[]].decode().shape == (0, 16) and again.quality(x[:0]) is None


def test_rows_by_id(archive, any_archive):
    for one in (archive, any_archive, gpuzip.open(file_of(any_archive))):
        every = one.decode()
        for ids in ([0], [-1], [149, 0, 64, 63, 64, -150], list(range(150)), [], [70, 70]):
            assert torch.equal(one.rows(ids), every[ids])
        for bad in ([150], [-151]):
            with pytest.raises(IndexError, match=r"Archive\.rows: "):
                one.rows(bad)


def test_indices(archive, any_archive):
    for one in (archive, any_archive):
        every = one.decode()
        for index in (slice(3, 140, 7), slice(None, None, -1), [5, -1, 70, 70], torch.arange(150) % 3 == 0):
            want = every.flip(0) if isinstance(index, slice) and index.step == -1 else every[index]
            got = one[index]
            assert len(got) == len(want) and torch.equal(got.decode(), want)
        assert len(one[7]) == 1 and torch.equal(one[7].decode(), every[7:8])
        assert torch.equal(torch.cat([row.decode() for row in one[66:72]]), every[66:72])
        assert torch.equal(gpuzip.open(file_of(one[60:80])).decode(), every[60:80])


def test_decoded_elsewhere(archive):
    every, out = archive.decode(), torch.empty(150, 16)
    assert archive.decode(out=out) is out and torch.equal(out, every)
    half = archive.decode(torch.float16)
    assert half.dtype == torch.float16 and torch.equal(half, every.clamp(-65504, 65504).half())
    assert (
        np.array_equal(np.asarray(archive), every.numpy()) and np.asarray(archive, np.float64).dtype == float
    )
    moved = archive.to("cpu")
    assert torch.equal(moved.decode(), every) and moved.device == torch.device("cpu")
    with pytest.raises(
        gpuzip.GpuzipError, match=r"Archive\.decode: out must be \(150, 16\) on cpu; got \(150, 15\)"
    ):
        archive.decode(out=torch.empty(150, 15))


def scores(q: Tensor, rows_: Tensor, metric: str) -> Tensor:
    q, rows_ = q.double(), rows_.double()
    if metric == "cosine":
        q, rows_ = torch.nn.functional.normalize(q), torch.nn.functional.normalize(rows_)
    if metric == "l2":
        return ((q[:, None] - rows_) ** 2).sum(2)
    return (q[:, None] * rows_).sum(2)  # and no product of matrices, whose equal rows differ in the last bit


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_search_is_that_of_all_decoded_rows(metric, any_archive):
    q = rows(5, 16, 3)
    twice = any_archive[[*range(100), *range(100)]]  # every row has an equal one
    mask = torch.arange(200) % 5 != 0
    want = scores(q, twice.decode(), metric) * (1 if metric == "l2" else -1)
    for allowed in (None, mask):
        hidden = want if allowed is None else want.masked_fill(~allowed, math.inf)
        order = hidden.sort(dim=1, stable=True)
        values, ids = twice.search(q, 9, metric, allowed)
        assert ids.tolist() == order.indices[:, :9].tolist()
        assert torch.allclose(values.double(), order.values[:, :9].abs() * values.sign(), atol=1e-4)
    one = twice.search(q[0], 3, metric)
    assert one.ids.shape == (3,) and one.ids.tolist() == twice.search(q, 3, metric).ids[0].tolist()
    assert twice.search(q, 10, metric, torch.arange(200) < 4).ids.shape == (5, 4)


def test_quality_is_that_of_decoded_rows(x, any_archive):
    found, got = any_archive.quality(x), any_archive.decode()
    assert found is not None
    assert found.mse == pytest.approx(float((got - x).double().square().mean()), rel=1e-4, abs=1e-12)
    cosine = torch.nn.functional.cosine_similarity(got.double(), x.double(), dim=1).mean()
    assert found.row_cosine == pytest.approx(float(cosine), abs=1e-6)
    with pytest.raises(gpuzip.GpuzipError, match=r"Archive\.quality: x must have 150 rows; got 3"):
        any_archive.quality(x[:3])


def test_files(x, archive, any_archive, tmp_path: Path):
    for one in (archive, any_archive):
        info = one.save(tmp_path / "a.ezip", x)
        data = (tmp_path / "a.ezip").read_bytes()
        assert info == gpuzip.info(tmp_path / "a.ezip") and info.nbytes == len(data)
        assert (info.n, info.d, info.codec, info.dtype) == (150, 16, "transform", torch.float32)
        assert file_of(one, x) == data
        for again in (
            gpuzip.open(tmp_path / "a.ezip"),
            gpuzip.open(tmp_path / "a.ezip", verify=True),
            gpuzip.open(data),
            gpuzip.open(io.BytesIO(data)),
        ):
            assert torch.equal(again.decode(), one.decode()) and again.nbytes == one.nbytes
            assert file_of(again, x) == data  # a file that is read and written is the same
        for source in (tmp_path / "a.ezip", data, io.BytesIO(data)):
            assert torch.equal(gpuzip.load(source), one.decode())


def test_files_by_url(any_archive):
    pytest.importorskip("fsspec")
    any_archive.save("memory://archives/a.ezip")
    again = gpuzip.open("memory://archives/a.ezip")
    assert torch.equal(again.rows([149, 2]), any_archive.rows([149, 2]))
    assert torch.equal(again.decode(), any_archive.decode())


def test_a_damaged_block_leaves_the_others(any_archive, tmp_path: Path):
    data = bytearray(file_of(any_archive))
    middle = any_archive.blocks.stream[int(any_archive.blocks.ends[0]) :][:40].numpy().tobytes()
    data[data.index(middle) + 20] ^= 1
    (tmp_path / "a.ezip").write_bytes(data)
    again = gpuzip.open(tmp_path / "a.ezip")
    assert torch.equal(again.rows([0, 63, 128]), any_archive.rows([0, 63, 128]))
    for call in (
        lambda: again.rows([64]),
        again.decode,
        lambda: gpuzip.open(tmp_path / "a.ezip", verify=True),
    ):
        with pytest.raises(gpuzip.FormatError, match=r"a\.ezip: block 1 of the stream, .* rows from 64 on"):
            call()


def test_a_file_below_a_cosine_is_refused(x):
    archive = compressed(x, min_cosine=0.9)
    with pytest.raises(gpuzip.QualityError):
        gpuzip.open(file_of(archive, x), min_cosine=0.95)
    with pytest.raises(gpuzip.QualityError):
        gpuzip.open(file_of(archive), min_cosine=0.5)


def test_arrays_and_memory_maps(x, tmp_path: Path):
    np.save(tmp_path / "x.npy", x.numpy())
    data = file_of(compressed(x, max_row_error=0.3))
    for given_ in (x.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r")):
        assert file_of(compressed(given_, max_row_error=0.3)) == data
    wide = np.asfortranarray(x.numpy().astype(np.float64))
    check_aim(x.double(), compressed(wide, max_row_error=0.3), max_row_error=0.3)


@pytest.mark.parametrize("dial", [{"max_row_error": 0.3}, {"max_error": 0.1}, {"lossless": True}], ids=str)
def test_the_same_bytes_each_time_with_any_number_of_threads(dial, x):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(file_of(compressed(x, block_rows=32, **dial)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@settings(deadline=None, max_examples=5, derandomize=True)
@given(
    x=st.tuples(st.integers(1, 40), st.integers(1, 6)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.floats(-(2.0**40), 2.0**40, width=32))
    ),
    error=st.sampled_from([1e-2, 3.0, 1e6]),
)
def test_bounds_hold_for_any_rows(x, error):
    x = torch.from_numpy(x)
    for name in ("max_error", "max_row_error"):
        try:
            archive = compressed(x, **{name: error})
        except gpuzip.GpuzipError:  # no step of float32 is so fine
            assert float(x.abs().max()) > 1e4 * error
            continue
        check_aim(x, archive, **{name: error})
    check_aim(x, compressed(x, lossless=True), lossless=True)


WRONG = [
    (
        {},
        "one of min_cosine, bits_per_dim, max_bytes, max_error, .* must be given; got none",
    ),
    ({"min_cosine": 0.9, "lossless": True}, "must be given; got min_cosine and lossless"),
    ({"min_cosine": 1}, r"min_cosine must be a number within \(0, 1\); got 1"),
    ({"max_bytes": -3}, r"max_bytes must be a number within \(0, inf\); got -3"),
    ({"max_error": "1"}, r"max_error must be a number within \(0, inf\); got '1'"),
    ({"bits_per_dim": math.nan}, "bits_per_dim must be a number"),
    ({"lossless": True, "block_rows": 0}, "block_rows must be"),
    ({"lossless": True, "block_rows": 65537}, "block_rows must be at most 65536; got 65537"),
    ({"lossless": True, "states": 5}, "states must be one of 4, 8, 16, 32, 64, 128, 256; got 5"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_wrong_arguments(arguments, words):
    with pytest.raises(gpuzip.GpuzipError, match=words):
        gpuzip.TransformCoder(**arguments)


def test_wrong_rows(x, archive):
    coder = gpuzip.TransformCoder(min_cosine=0.9)
    with pytest.raises(gpuzip.NotFittedError, match=r"Call \.fit\(x\)"):
        coder.encode(x)
    with pytest.raises(gpuzip.GpuzipError, match=r"TransformCoder\.fit: x must have at least one row"):
        coder.fit(x[:0])
    with pytest.raises(gpuzip.GpuzipError, match="at most 8192 columns; got 8193"):
        coder.fit(torch.zeros(1, 8193))
    with pytest.raises(gpuzip.GpuzipError, match="NaN"):
        coder.fit(x / 0)
    with pytest.raises(gpuzip.GpuzipError, match=r"TransformCoder\.encode: x must have 16 columns"):
        archive.codec.encode(x[:, :3])
    with pytest.raises(gpuzip.GpuzipError, match=r"no step reaches this aim\. Ask for less"):
        gpuzip.TransformCoder(max_bytes=100).fit(x)
    with pytest.raises(gpuzip.GpuzipError, match=r"Archive\.search: "):
        archive.search(x[:1], 0)


def test_a_small_error_of_rows_that_have_few_bits_is_none(x: Tensor):
    halves = x.half().float()
    within = gpuzip.TransformCoder(max_error=1.2e-7).fit(halves).encode(halves)
    exact = gpuzip.TransformCoder(lossless=True).fit(halves).encode(halves)
    assert within.nbytes == exact.nbytes
    assert torch.equal(within.decode(), halves)
