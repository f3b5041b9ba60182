"""Scalar and binary codes, and Hamming search, beside FAISS, USearch and sentence-transformers."""

from __future__ import annotations

from functools import cache, partial
from itertools import product

import faiss
import numpy as np
import torch
from torch import Tensor
from usearch.index import MetricKind

import gpuzip
from bench.agree import Found
from bench.data import SEARCHED, D, made, made_blocks, sample
from bench.measure import Call
from bench.peers import sentence_transformers_quantize, usearch_exact
from bench.speeds import Race, Search, search_race
from gpuzip import BinaryQuantizer, Codes, ScalarQuantizer

_ROWS = 100_000


@cache
def _rows() -> Tensor:
    return made(_ROWS)


@cache
def _directions(bits: int) -> Tensor:
    """Random directions to take signs along, where there are more bits than dimensions."""
    return torch.randn(D, bits, generator=torch.Generator().manual_seed(bits))


def _values(x: Tensor, bits: int) -> Tensor:
    return x if bits == D else x @ _directions(bits)


@cache
def _signs(bits: int) -> Codes:
    codec = BinaryQuantizer(levels="sign").fit(_values(sample().embeddings, bits))
    return gpuzip.cat([codec.encode(_values(block, bits)) for block in made_blocks(SEARCHED[-1])])


@cache
def _scalars() -> Codes:
    codec = ScalarQuantizer(steps=255).fit(_rows())
    return gpuzip.cat([codec.encode(block) for block in made_blocks(SEARCHED[-1])])


@cache
def _int8() -> np.ndarray:
    """Rows as USearch stores them when their length is 1."""
    return np.concatenate([(block.numpy() * 127).astype(np.int8) for block in made_blocks(SEARCHED[-1])])


def hamming(bits: int, n: int, q: int) -> Race:
    codes = _signs(bits)[:n]
    queries = codes.codec.encode(_values(sample().queries[:q], bits)).data
    rows, asked = codes.data.numpy(), queries.numpy()
    index = faiss.IndexBinaryFlat(bits)
    index.add(rows)

    def theirs(count: int) -> Found:
        values, ids = index.search(asked[:count], 10)
        return values, ids

    peers: dict[str, Search] = {
        "FAISS IndexBinaryFlat": theirs,
        "USearch exact": partial(usearch_exact, rows, asked, MetricKind.Hamming),
    }
    case = {"rows": n, "m": None, "nbits": bits, "queries": q}
    return search_race("hamming", case, partial(codes.search, queries, 10, "hamming"), peers, tolerance=0)


def scalar_encode() -> Race:
    x, codec = _rows(), _scalars().codec
    array = x.numpy()
    quantizer = faiss.ScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit)
    quantizer.train(array)
    ranges = np.stack([array.min(0), array.max(0)])
    peers: dict[str, Call] = {
        "sentence-transformers": partial(sentence_transformers_quantize(), array, "uint8", ranges=ranges),
        "FAISS": partial(quantizer.compute_codes, array),
    }
    ours = codec.encode(x).data.numpy()
    assert np.array_equal(ours, peers["sentence-transformers"]())
    assert (ours != peers["FAISS"]()).mean() < 1e-3
    case = {"rows": _ROWS, "m": None, "nbits": 8}
    return Race("scalar encode", case, partial(codec.encode, x), peers)


def binary_encode() -> Race:
    x, codec = _rows(), BinaryQuantizer().fit(_rows())
    theirs = partial(sentence_transformers_quantize(), x.numpy(), "ubinary")
    assert np.array_equal(codec.encode(x).data.numpy(), theirs())
    case = {"rows": _ROWS, "m": None, "nbits": 1}
    return Race("binary encode", case, partial(codec.encode, x), {"sentence-transformers": theirs})


def scalar_search(n: int, q: int) -> Race:
    codes, queries = _scalars()[:n], sample().queries[:q].contiguous()
    asked, index = queries.numpy(), gpuzip.to_faiss(codes, "ip")
    peers = {"FAISS IndexScalarQuantizer": lambda count: index.search(asked[:count], 10)}
    own = {
        "USearch i8, exact": partial(usearch_exact, _int8()[:n], (asked * 127).astype(np.int8), MetricKind.IP)
    }
    case = {"rows": n, "m": None, "nbits": 8, "queries": q}
    race = search_race("int8 search", case, partial(codes.search, queries, 10, "ip"), peers, own)
    if n == _ROWS:  # a million rows of float32 and their scores take gigabytes
        rows = codes.decode()
        race.peers["torch, float32"] = lambda: torch.topk(queries @ rows.T, 10)
    return race


RACES = [
    *(partial(hamming, *case) for case in product((D, 1024), SEARCHED, (1, 16, 256))),
    partial(scalar_encode),
    partial(binary_encode),
    *(partial(scalar_search, *case) for case in product(SEARCHED, (1, 16, 256))),
]
