"""What searches the same rows as codes of ours: FAISS, USearch, and NumKong and turbovec where installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor
from usearch.index import MetricKind

import gpuzip
from bench.agree import Found
from bench.data import D
from bench.peers import usearch_exact
from gpuzip import Codes

Peer = Callable[[int, int], Found]
"""Searches for the first so many queries and so many rows of each."""
Peers = Mapping[str, Peer]

PQ, FAST, BITS, SQ = "IndexPQ", "IndexPQFastScan", "IndexBinaryFlat", "IndexScalarQuantizer"
RABITQ, B1, I8, TURBO = "IndexRaBitQFastScan", "USearch b1, exact", "USearch i8, exact", "turbovec"
DECODED = "float32 product and torch.topk"
DECODES = "decoding, float32 product and torch.topk"
NUMKONG_B1, NUMKONG_I8 = "NumKong b1 and torch.topk", "NumKong i8 and torch.topk"

#: Whose codes are others, so that recall is compared instead of neighbours.
OWN = {FAST, RABITQ, I8, TURBO, NUMKONG_I8}

FAISS = {PQ, FAST, BITS, SQ, RABITQ}
PLAIN_TARGET = 0.33  # where plain torch and numpy search

#: The ratio that is needed, of the numbers of rows and queries.
TARGETS: dict[str, Callable[[int, int], float]] = {
    PQ: lambda n, q: 2.0,
    FAST: lambda n, q: 0.8 if n <= 10_000 else 1.1,
    BITS: lambda n, q: 1.4,
    **dict.fromkeys((SQ, I8), lambda n, q: 1.5 if q == 1 else 3.0),
    **dict.fromkeys((RABITQ, TURBO), lambda n, q: 1.0),
    DECODED: lambda n, q: 0.5,
    DECODES: lambda n, q: 1.0,
}

_TRAINED = 20_000
_MOST_DISTANCES = 32_000_000  # that NumKong, which has no search, may write for one call


def that_fit(peers: Peers, distances: int) -> Peers:
    """Those that don't take too much memory for so many distances."""
    is_small = distances <= _MOST_DISTANCES
    return {name: peer for name, peer in peers.items() if is_small or "NumKong" not in name}


def decoded(codes: Codes, queries: Tensor) -> Peers:
    """What needs no library: all products of decoded rows, which take four times the bytes or more."""
    rows = codes.decode()
    return {
        DECODED: lambda count, k: _best(queries[:count] @ rows.T, k),
        DECODES: lambda count, k: _best(queries[:count] @ codes.decode().T, k),
    }


def none(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    """Return no peer of another library."""
    return {}


def _best(scores: Tensor, k: int, *, largest: bool = True) -> Found:
    best = scores.topk(k, largest=largest)
    return best.values.numpy(), best.indices.numpy()


def product(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    return {PQ: _asking(gpuzip.to_faiss(codes, "ip"), asked)}


def fast(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    return {FAST: _asking(faiss.IndexPQFastScan(gpuzip.to_faiss(codes, "ip")), asked)}


def bits(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    rows = codes.data.numpy()
    peers: dict[str, Peer] = {
        BITS: _asking(gpuzip.to_faiss(codes), asked),
        B1: partial(usearch_exact, rows, asked, MetricKind.Hamming),
    }
    return {**peers, **_numkong(NUMKONG_B1, "hammings", "uint1", rows, asked)}


def int8(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    """USearch stores rows of length 1 as these bytes."""
    rows, queries = ((part * 127).astype(np.int8) for part in (x.numpy(), asked))
    peers: dict[str, Peer] = {
        SQ: _asking(gpuzip.to_faiss(codes, "ip"), asked),
        I8: partial(usearch_exact, rows, queries, MetricKind.IP),
    }
    return {**peers, **_numkong(NUMKONG_I8, "dots", "int8", rows, queries)}


def rabitq(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    """turbovec's rows take a few bytes less than those of 4 bits."""
    width: int = codes.codec.bits  # type: ignore[attr-defined]
    index = faiss.IndexRaBitQFastScan(D, faiss.METRIC_INNER_PRODUCT, 32, width)
    index.train(x[:_TRAINED].numpy())
    index.add(x.numpy())
    return {RABITQ: _asking(index, asked), **(turbovec(codes, x, asked) if width == 4 else {})}


def turbovec(codes: Codes, x: Tensor, asked: np.ndarray) -> Peers:
    if not find_spec("turbovec"):
        return {}
    index = import_module("turbovec").TurboQuantIndex(D, 4)
    index.add(x.numpy())
    index.prepare()
    return {TURBO: _asking(index, asked)}


def _asking(index: Any, asked: np.ndarray) -> Peer:
    return lambda count, k: index.search(asked[:count], k)


def _numkong(name: str, kind: str, dtype: str, rows: np.ndarray, asked: np.ndarray) -> Peers:
    """All distances, in one thread, and torch's best of them: NumKong itself has no search."""
    if not find_spec("numkong"):
        return {}
    library: Any = import_module("numkong")
    packed, distances = (
        getattr(library, f"{kind}_pack")(rows, dtype=dtype),
        getattr(library, f"{kind}_packed"),
    )

    def found(count: int, k: int) -> Found:
        each = torch.from_numpy(np.asarray(distances(asked[:count], packed)).view(np.int32))
        return _best(each, k, largest=kind == "dots")

    return {name: found}
