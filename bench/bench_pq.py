"""Product quantization beside FAISS and embzip's recipe: pytest bench --benchmark-only.

Every case first asserts that both sides give the same answer, then times them in turns.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from bench import agree
from bench.conftest import Compare
from bench.data import MOST_ROWS, made, made_blocks, sample
from bench.measure import Call, affordable
from bench.peers import embzip_load, embzip_save, faiss_pq
from gpuzip import Codes, ProductQuantizer

_ROWS = 20_000


@cache
def _rows() -> Tensor:
    return made(_ROWS)


@cache
def _codec(m: int, nbits: int) -> ProductQuantizer:
    return ProductQuantizer(m=m, nbits=nbits).fit(_rows())


@cache
def _codes(m: int, nbits: int) -> Codes:
    return gpuzip.cat([_codec(m, nbits).encode(block) for block in made_blocks(MOST_ROWS)])


@pytest.mark.benchmark(group="train")
@pytest.mark.parametrize(("n", "m", "nbits"), [(_ROWS, 48, 8), (1000, 64, 4)])
def test_train(compare: Compare, n: int, m: int, nbits: int) -> None:
    x = _rows() if n == _ROWS else sample().embeddings[:n].contiguous()

    def ours() -> ProductQuantizer:
        return ProductQuantizer(m=m, nbits=nbits).fit(x)

    def theirs() -> Any:
        return faiss_pq(x.numpy(), m, nbits)

    # Each from its own random start, so equal only in how good they are.
    error, their_error = (
        float((codec.encode(x).decode() - x).square().mean())
        for codec in (ours(), gpuzip.from_faiss(theirs()))
        if isinstance(codec, ProductQuantizer)
    )
    assert error == pytest.approx(their_error, rel=0.03)
    compare(ours, {"FAISS": theirs}, {}, rows=n, m=m, nbits=nbits)


@pytest.mark.benchmark(group="encode")
@pytest.mark.parametrize(("m", "nbits"), [(48, 8), (96, 4)])
def test_encode(compare: Compare, m: int, nbits: int) -> None:
    x, codec = _rows(), _codec(m, nbits)
    pq = gpuzip.to_faiss(codec)

    def ours() -> Codes:
        return codec.encode(x)

    def theirs() -> np.ndarray:
        return np.asarray(pq.compute_codes(x.numpy()))

    agree.same_codes(x, codec, ours().data, torch.from_numpy(theirs()))
    compare(ours, {"FAISS": theirs}, {}, rows=_ROWS, m=m, nbits=nbits)


@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize(("m", "nbits"), [(48, 8), (96, 4)])
def test_decode(compare: Compare, m: int, nbits: int) -> None:
    codes = _codec(m, nbits).encode(_rows())
    pq, data = gpuzip.to_faiss(codes.codec), codes.data.numpy()

    def theirs() -> np.ndarray:
        return np.asarray(pq.decode(data))

    assert np.array_equal(codes.decode().numpy(), theirs())
    compare(codes.decode, {"FAISS": theirs}, {}, rows=_ROWS, m=m, nbits=nbits)


@pytest.mark.benchmark(group="search")
@pytest.mark.parametrize("q", [1, 16, 64, 256])
@pytest.mark.parametrize("n", sorted({100_000, MOST_ROWS}))
@pytest.mark.parametrize(("m", "nbits"), [(48, 8), (96, 4)])
def test_search(compare: Compare, m: int, nbits: int, n: int, q: int) -> None:
    codes, queries = _codes(m, nbits)[:n], sample().queries[:q].contiguous()
    index = gpuzip.to_faiss(codes, "ip")

    def ours() -> tuple[Tensor, Tensor]:
        return codes.search(queries, 10, "ip")

    def theirs(count: int = q) -> agree.Found:
        values, ids = index.search(queries[:count].numpy(), 10)
        return values, ids

    peers: dict[str, Call] = {}
    values, ids = (found.numpy() for found in ours())
    about = affordable(peers, "FAISS IndexPQ", theirs, q)
    checked = q if peers else min(q, 16)
    agree.same_neighbours((values[:checked], ids[:checked]), theirs(checked))
    if nbits == 4:
        fast = faiss.IndexPQFastScan(index)
        peers["FAISS IndexPQFastScan"] = lambda: fast.search(queries.numpy(), 10)
        near = torch.from_numpy(fast.search(queries.numpy(), 10)[1])
        about["FAISS IndexPQFastScan"] = {"recall": gpuzip.recall(near, torch.from_numpy(ids))}
    compare(ours, peers, about, rows=n, m=m, nbits=nbits, queries=q)


@pytest.mark.benchmark(group="save")
@pytest.mark.parametrize(("m", "polysemous"), [(64, True), (64, False), (128, False), (384, False)])
def test_save(compare: Compare, tmp_path: Path, m: int, polysemous: bool) -> None:
    x, path, other = sample().embeddings[:1000].contiguous(), tmp_path / "ours.ezip", tmp_path / "embzip"

    def ours() -> None:
        gpuzip.save(x, path, m=m, nbits=4)

    def theirs() -> None:
        embzip_save(x, other, m, polysemous=polysemous)

    ours()
    theirs()
    assert agree.cosine(x, gpuzip.load(path)) > agree.cosine(x, embzip_load(other)) - 0.002
    name = "embzip" if polysemous else "embzip, fast training"
    compare(ours, {name: theirs}, {}, rows=len(x), m=m, nbits=4)
