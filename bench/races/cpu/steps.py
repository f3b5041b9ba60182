"""Training, encoding, decoding, rows by id and files of every kind of code, beside FAISS or numpy."""

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
from bench.agree import cosine
from bench.data import D, made
from bench.measure import Call, is_quick
from bench.peers import faiss_pq, sentence_transformers_quantize
from bench.races.cpu.duel import Duel
from gpuzip import BinaryQuantizer, Codes, ProductQuantizer, Quantizer, RaBitQuantizer, ScalarQuantizer

_ROWS = 20_000
_STORED = 20_000 if is_quick() else 100_000
_FOLDER = tempfile.TemporaryDirectory()

CODECS: dict[str, Quantizer] = {
    "PQ48x8": ProductQuantizer(m=48, nbits=8),
    "PQ96x4": ProductQuantizer(m=96, nbits=4),
    "int8": ScalarQuantizer(steps=255),
    "384 bits": BinaryQuantizer(),
    "RaBitQ, 1 bit": RaBitQuantizer(1),
    "RaBitQ, 4 bits": RaBitQuantizer(4),
}


class Faiss:
    """An index: with our codes where FAISS can read them."""

    name = "FAISS"

    def __init__(self, codes: Codes, x: Tensor) -> None:
        if isinstance(codes.codec, RaBitQuantizer):
            self.index: Any = faiss.IndexRaBitQ(D, faiss.METRIC_INNER_PRODUCT, codes.codec.bits)
            self.index.train(x[:_ROWS].numpy())
            self.index.add(x.numpy())
        else:
            self.index = gpuzip.to_faiss(codes, "ip")
        self.encode, self.decode = self.index.sa_encode, self.index.sa_decode
        self.rows = self.index.reconstruct_batch
        self.save = partial(faiss.write_index, self.index)
        self.read = faiss.read_index

    def open(self, path: str) -> Any:
        return faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)

    def load(self, path: str) -> np.ndarray:
        found: np.ndarray = self.read(path).reconstruct_n(0, self.index.ntotal)
        return found


class Numpy:
    """Bits as numpy packs them, and as floats of -1 and 1."""

    name = "numpy"

    def __init__(self, codes: Codes, x: Tensor) -> None:
        self.data = codes.data.numpy()
        self.read, self.open = np.load, partial(np.load, mmap_mode="r")

    def encode(self, x: np.ndarray) -> np.ndarray:
        return np.packbits(x > 0, axis=1)

    def decode(self, data: np.ndarray) -> np.ndarray:
        return np.unpackbits(data, axis=1).astype(np.float32) * 2 - 1

    def rows(self, ids: np.ndarray) -> np.ndarray:
        return self.decode(self.data[ids])

    def save(self, path: str) -> None:
        np.save(path, self.data)

    def load(self, path: str) -> np.ndarray:
        return self.decode(np.load(path))


@cache
def _made(setting: str, n: int) -> tuple[Codes, Any, Tensor]:
    """Our codes, the peer, and the rows."""
    x, codec = made(n), CODECS[setting]
    codes = codec.fit(x[:_ROWS]).encode(x)
    return codes, (Numpy if isinstance(codec, BinaryQuantizer) else Faiss)(codes, x), x


@cache
def _coded(setting: str) -> tuple[Codes, Any, Tensor, Any]:
    """The same, with the peer's codes, and checked."""
    codes, peer, x = _made(setting, _ROWS)
    ids, data = torch.arange(0, _ROWS, 97), peer.encode(x.numpy())
    assert torch.equal(codes.rows(ids), codes.decode()[ids])
    _as_near(x, codes.decode(), peer.decode(data))
    return codes, peer, x, data


def train(setting: str) -> Duel:
    codec, (_, peer, x) = CODECS[setting], _made(setting, _ROWS)
    if isinstance(codec, ProductQuantizer):
        theirs: Call = partial(faiss_pq, x.numpy(), codec.m or 0, codec.nbits)
    else:
        theirs = partial(peer.index.train, x.numpy())
    return _race("train", setting, _ROWS, partial(codec.fit, x), {peer.name: theirs})


def coding(step: str, setting: str) -> Duel:
    codes, peer, x, data = _coded(setting)
    array, ids = x.numpy(), torch.randperm(_ROWS, generator=torch.Generator().manual_seed(0))[:256]
    sides: dict[str, tuple[Call, Call]] = {
        "encode": (partial(codes.codec.encode, x), partial(peer.encode, array)),
        "decode": (codes.decode, partial(peer.decode, data)),
        "rows by id, 1": (partial(codes.rows, ids[:1]), partial(peer.rows, ids[:1].numpy())),
        "rows by id, 256": (partial(codes.rows, ids), partial(peer.rows, ids.numpy())),
    }
    ours, theirs = sides[step]
    peers: dict[str, Call] = {peer.name: theirs}
    if step == "encode" and setting == "384 bits":
        peers["sentence-transformers"] = partial(sentence_transformers_quantize(), array, "ubinary")
    if step == "encode" and setting == "int8":
        ranges = np.stack([array.min(0), array.max(0)])
        peers["sentence-transformers"] = partial(
            sentence_transformers_quantize(), array, "uint8", ranges=ranges
        )
    return _race(step, setting, _ROWS, ours, peers)


def files(step: str, setting: str) -> Duel:
    """`read` has all codes in memory and `load` all rows; ours verify a checksum."""
    codes, peer, x = _made(setting, _STORED)
    path, other = (str(Path(_FOLDER.name, f"{setting}{ending}")) for ending in (".ezip", ".npy"))
    codes.save(path)
    peer.save(other)
    calls: dict[str, Call] = {
        "save": partial(codes.save, path),
        "open": partial(gpuzip.open, path),
        "read": lambda: gpuzip.open(path, verify=True).data[:].clone(),
        "load": partial(gpuzip.load, path),
    }
    assert torch.equal(calls["read"](), codes.data[:])
    _as_near(x, gpuzip.load(path), peer.load(other))
    return _race(step, setting, _STORED, calls[step], {peer.name: partial(getattr(peer, step), other)})


def _race(group: str, setting: str, n: int, ours: Call, peers: dict[str, Call]) -> Duel:
    return Duel(group, {"setting": setting, "rows": n}, ours, peers, at_least=dict.fromkeys(peers, 1.0))


def _as_near(x: Tensor, ours: Tensor, theirs: np.ndarray) -> None:
    """Our rows are as near to the source as the peer's are."""
    near, nearest = (cosine(x, rows) for rows in (ours, torch.from_numpy(theirs)))
    assert near >= nearest - 0.002, f"cosine {near:.4f}, theirs {nearest:.4f}"


_NOT_TRAINED = {"384 bits", "PQ48x8"} if is_quick() else {"384 bits"}  # no peer; no time
RACES = [
    *(partial(train, setting) for setting in CODECS if setting not in _NOT_TRAINED),
    *(
        partial(coding, *case)
        for case in product(("encode", "decode", "rows by id, 1", "rows by id, 256"), CODECS)
    ),
    *(partial(files, *case) for case in product(("save", "open", "read", "load"), CODECS)),
]
