"""Nothing around a call changes its result: torch's defaults, autocast, switches of float32 products."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

import gpuzip
from gpuzip._core.matmul import matrix_product, products_are_float32
from gpuzip.errors import GpuzipError
from gpuzip.ops._dispatch import use_loops
from tests.test_codec_laws import SETTINGS

CPU = torch.device("cpu")
FAST = {"pq-opq", "binary", "scalar-4", "rabitq-4", "residual"}
pytestmark = pytest.mark.filterwarnings("ignore:.*x should have at least")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def low_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "medium": low_precision,
}
each_surrounding = pytest.mark.parametrize("around", SURROUNDINGS)
LANES = pytest.mark.parametrize(
    "loops", [pytest.param(True, id="loops"), pytest.param(False, id="torch", marks=pytest.mark.full)]
)


def results(unfitted: Any, x: torch.Tensor, queries: torch.Tensor) -> list[torch.Tensor]:
    """What a codec learns, its codes, rows and scores."""
    codec = unfitted.fit(x, seed=3)
    codes = codec.encode(x)
    found = [codes.search(queries, 5, metric) for metric in codec.metrics]
    found += [codes.search(queries, 5, rescore=x)]
    values = [value for pair in found for value in pair]
    return [*codec.state().values(), codes.data[:], codes.decode(), codes.rows([3, -1]), codes.norms, *values]


@LANES
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.full) for name in sorted(SETTINGS)],
)
def test_codecs_give_the_same_bytes(real, name, loops):
    x, queries = real[:300, :96].contiguous(), real[300:320, :96].contiguous()
    unfitted = small(SETTINGS[name])
    with use_loops(loops):
        want = results(unfitted, x, queries)
        for around in SURROUNDINGS.values():
            with around():
                got = results(unfitted, x, queries)
            for one, other in zip(got, want, strict=True):
                assert one.dtype == other.dtype and one.device == other.device
                assert torch.equal(one, other)


def small(codec: Any) -> Any:
    """A setting for 96 columns."""
    from dataclasses import replace

    changes: dict[str, Any] = {}
    if getattr(codec.rotation, "dims", None):
        changes["rotation"] = replace(codec.rotation, dims=64)
    if codec.id == "lloydmax" and isinstance(codec.per, int):
        changes["per"] = 32
    return replace(codec, **changes)


@each_surrounding
def test_whole_jobs_give_the_same(real, tmp_path, around):
    x = real[:400, :64].contiguous()

    def jobs(name: str) -> list[torch.Tensor]:
        codes = gpuzip.compress(x, max_bytes=12_000)
        gpuzip.save(x, tmp_path / name, 8)
        loaded = gpuzip.load(tmp_path / name)
        hits = gpuzip.semantic_search(x[:3], x, 4)
        scores = torch.tensor(
            [[hit["score"] for hit in row] for row in hits], dtype=torch.float64, device="cpu"
        )
        near = torch.tensor(gpuzip.most_similar(0, codes, 3), dtype=torch.float64, device="cpu")
        module = gpuzip.nn.QuantizedEmbedding.from_pretrained(x, bits=4)
        looked_up = module(torch.arange(5, device="cpu"))
        return [codes.data[:], loaded, scores, near, looked_up, codes.decode(torch.float16)]

    want = jobs("plain")
    with SURROUNDINGS[around]():
        got = jobs("around")
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype and one.device == other.device
        assert torch.equal(one, other)


def test_outcomes_are_chosen_alike(real):
    x = real[:600, :48].contiguous()
    want = gpuzip.compress(x, min_cosine=0.9)
    with default_dtype(torch.float64):
        got = gpuzip.compress(x, min_cosine=0.9)
    assert got.codec.spec == want.codec.spec and torch.equal(got.data[:], want.data[:])


@pytest.mark.parametrize("threads", [1, 2])
def test_under_autocast_the_number_of_threads_changes_nothing(real, threads):
    x, before = real[:300, :64].contiguous(), torch.get_num_threads()
    codec = gpuzip.ResidualQuantizer(4, nbits=4, rotation="pca").fit(x)
    want = codec.encode(x)
    try:
        torch.set_num_threads(threads)
        with torch.autocast("cpu", torch.bfloat16):
            codes = codec.encode(x)
            assert torch.equal(codes.data, want.data)
            assert torch.equal(codes.search(x[:9], 5)[0], want.search(x[:9], 5)[0])
    finally:
        torch.set_num_threads(before)


def test_a_product_leaves_the_switches_as_they_were():
    a = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    want = torch.mm(a, a)
    with low_precision():
        assert not products_are_float32(CPU)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.mm(a, a).dtype == torch.bfloat16  # what would happen
            assert torch.equal(matrix_product(torch.mm, a, a), want)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium" and not products_are_float32(CPU)
        with pytest.raises(RuntimeError):
            matrix_product(torch.mm, a, a[:3])
        assert not products_are_float32(CPU)
    assert products_are_float32(CPU)


def test_bad_input_is_told_as_everywhere():
    with torch.device("meta"), pytest.raises(GpuzipError, match="must be 2-D"):
        gpuzip.compress(torch.zeros(3, device="cpu"))
