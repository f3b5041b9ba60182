"""Product quantization beside FAISS and embzip's recipe."""

from __future__ import annotations

import tempfile
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

import gpuzip
from bench import agree
from bench.data import SEARCHED, made, made_blocks, sample
from bench.peers import embzip_load, embzip_save, faiss_pq
from bench.speeds import Race, search_race
from gpuzip import Codes, ProductQuantizer

_ROWS = 20_000
_CODES = ((48, 8), (96, 4))  # m, nbits
_FOLDER = tempfile.TemporaryDirectory()


@cache
def _rows() -> Tensor:
    return made(_ROWS)


@cache
def _codec(m: int, nbits: int) -> ProductQuantizer:
    return ProductQuantizer(m=m, nbits=nbits).fit(_rows())


@cache
def _codes(m: int, nbits: int) -> Codes:
    return gpuzip.cat([_codec(m, nbits).encode(block) for block in made_blocks(SEARCHED[-1])])


def _case(rows: int, m: int, nbits: int) -> dict[str, Any]:
    return {"rows": rows, "m": m, "nbits": nbits}


def train(n: int, m: int, nbits: int) -> Race:
    x = _rows() if n == _ROWS else sample().embeddings[:n].contiguous()
    ours, theirs = partial(ProductQuantizer(m=m, nbits=nbits).fit, x), partial(faiss_pq, x.numpy(), m, nbits)
    # Each starts at random rows of its own, so only the errors are comparable.
    codecs = ours(), gpuzip.from_faiss(theirs())
    error, their_error = (float((codec.encode(x).decode() - x).square().mean()) for codec in codecs)
    assert abs(error - their_error) <= 0.03 * their_error
    return Race("train", _case(n, m, nbits), ours, {"FAISS": theirs})


def encode(m: int, nbits: int) -> Race:
    x, codec = _rows(), _codec(m, nbits)
    theirs = partial(gpuzip.to_faiss(codec).compute_codes, x.numpy())
    agree.same_codes(x, codec, codec.encode(x).data, torch.from_numpy(theirs()))
    return Race("encode", _case(_ROWS, m, nbits), partial(codec.encode, x), {"FAISS": theirs})


def decode(m: int, nbits: int) -> Race:
    codes = _codec(m, nbits).encode(_rows())
    theirs = partial(gpuzip.to_faiss(codes.codec).decode, codes.data.numpy())
    assert np.array_equal(codes.decode().numpy(), theirs())
    return Race("decode", _case(_ROWS, m, nbits), codes.decode, {"FAISS": theirs})


def search(codes_of: tuple[int, int], n: int, q: int) -> Race:
    codes, queries = _codes(*codes_of)[:n], sample().queries[:q].contiguous()
    index, asked = gpuzip.to_faiss(codes, "ip"), queries.numpy()
    peers = {"FAISS IndexPQ": lambda count: index.search(asked[:count], 10)}
    race = search_race(
        "search", _case(n, *codes_of) | {"queries": q}, partial(codes.search, queries, 10, "ip"), peers
    )
    if codes_of[1] == 4:
        fast, name = faiss.IndexPQFastScan(index), "FAISS IndexPQFastScan"
        race.peers[name] = partial(fast.search, asked, 10)
        near = torch.from_numpy(race.peers[name]()[1])
        race.about[name] = {"recall": gpuzip.recall(near, race.ours()[1])}
    return race


def save(m: int, polysemous: bool) -> Race:
    x, folder = sample().embeddings[:1000].contiguous(), Path(_FOLDER.name)
    path, other = folder / "ours.ezip", folder / "embzip"
    ours = partial(gpuzip.save, x, path, m=m, nbits=4)
    theirs = partial(embzip_save, x, other, m, polysemous=polysemous)
    ours(), theirs()
    assert agree.cosine(x, gpuzip.load(path)) > agree.cosine(x, embzip_load(other)) - 0.002
    name = "embzip" if polysemous else "embzip, fast training"
    return Race("save", _case(len(x), m, 4), ours, {name: theirs})


RACES = [
    *(partial(train, *case) for case in ((_ROWS, 48, 8), (1000, 64, 4))),
    *(partial(encode, *codes) for codes in _CODES),
    *(partial(decode, *codes) for codes in _CODES),
    *(partial(search, *case) for case in product(_CODES, SEARCHED, (1, 16, 64, 256))),
    *(partial(save, *case) for case in ((64, True), (64, False), (128, False), (384, False))),
]
