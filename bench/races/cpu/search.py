"""Searches of every kind of code beside its peers, by number of rows, queries and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor

import gpuzip
from bench.agree import same_neighbours
from bench.clocks import threads
from bench.data import D, made, sample
from bench.measure import Call, is_quick
from bench.races.cpu import rivals
from bench.races.cpu.duel import Duel, words_of
from bench.speeds import search_race
from gpuzip import (
    BinaryQuantizer,
    Codes,
    HalfQuantizer,
    LloydMaxQuantizer,
    ProductQuantizer,
    Quantizer,
    RaBitQuantizer,
    ResidualQuantizer,
    ScalarQuantizer,
)
from gpuzip.ops import use_loops

SIZES = (10_000, 100_000) if is_quick() else (10_000, 100_000, 1_000_000)
_ASKED = (1, 16) if is_quick() else (1, 16, 256)
_MIDDLE, _LEAST = 100_000, 1000
_TRAINED = 20_000
_JUDGED = 64 if is_quick() else 256  # queries by which recall is measured
_FEW = 16  # queries by which our answers are checked


class Kind(NamedTuple):
    """A codec and the peers of its codes. columns: of the rows, along random directions if not D.

    rows: the most that are searched, for codecs that take long to encode.
    """

    codec: Quantizer
    peers: Callable[[Codes, Tensor, np.ndarray], rivals.Peers]
    metric: Any = "ip"
    columns: int = D
    rows: int = 1_000_000


KINDS = {
    "PQ48x8": Kind(ProductQuantizer(m=48, nbits=8), rivals.product),
    "PQ96x4": Kind(ProductQuantizer(m=96, nbits=4), rivals.fast),
    "384 bits": Kind(BinaryQuantizer(levels="sign"), rivals.bits, "hamming"),
    "1024 bits": Kind(BinaryQuantizer(levels="sign"), rivals.bits, "hamming", 1024),
    "int8": Kind(ScalarQuantizer(steps=255), rivals.int8),
    "RaBitQ, 1 bit": Kind(RaBitQuantizer(1), rivals.rabitq),
    "RaBitQ, 4 bits": Kind(RaBitQuantizer(4), rivals.rabitq),
    "Lloyd-Max, 4 bits": Kind(LloydMaxQuantizer(4, rotation="hadamard"), rivals.turbovec),
    "Lloyd-Max, 5 bits": Kind(LloydMaxQuantizer(5), rivals.none),
    "Lloyd-Max, 8 bits": Kind(LloydMaxQuantizer(8), rivals.none),
    "float16": Kind(HalfQuantizer(), rivals.none),
    "RQ24x8": Kind(ResidualQuantizer(24), rivals.none, rows=10_000),
}


class Bench(NamedTuple):
    """Codes of the first n rows, all queries, and the peers with the same rows."""

    codes: Codes
    asked: Tensor
    peers: rivals.Peers
    decoded: rivals.Peers


@cache
def _rows() -> Tensor:
    return made(SIZES[-1])


def _values(x: Tensor, columns: int) -> Tensor:
    drawn = torch.Generator().manual_seed(columns)
    return x if columns == D else x @ torch.randn(D, columns, generator=drawn)


@lru_cache(1)
def _all_codes(setting: str) -> Codes:
    kind = KINDS[setting]
    rows = _rows()[: kind.rows]
    codec = kind.codec.fit(_values(rows[:_TRAINED], kind.columns))
    return gpuzip.cat([codec.encode(_values(block, kind.columns)) for block in rows.split(50_000)])


@lru_cache(1)
def _bench(setting: str, n: int) -> Bench:
    kind, codes = KINDS[setting], _all_codes(setting)[:n]
    asked = floats = _values(sample().queries, kind.columns)
    if kind.metric == "hamming":
        bits = codes.codec.encode(asked)
        asked, floats = bits.data, bits.decode()
    decoded = rivals.decoded(codes, floats) if n <= _MIDDLE else {}
    return Bench(codes, asked, kind.peers(codes, _rows()[:n], asked.numpy()), decoded)


@cache
def _nearest(n: int) -> Tensor:
    """The ten rows nearest to each query, by floats."""
    parts = sample().queries[:_JUDGED].split(_FEW)
    return torch.cat([(part @ _rows()[:n].T).topk(10).indices for part in parts])


@lru_cache(1)
def _recalls(setting: str, n: int) -> dict[str, tuple[float, float]]:
    """Recall@10 of ours and of each peer with other codes."""
    bench, truth = _bench(setting, n), _nearest(n)
    peers = {name: peer for name, peer in bench.peers.items() if name in rivals.OWN}
    if not peers:
        return {}
    ours = gpuzip.recall(bench.codes.search(bench.asked[:_JUDGED], 10, "ip").ids, truth)
    found = {name: peer(_JUDGED, 10)[1] for name, peer in rivals.that_fit(peers, n * _JUDGED).items()}
    return {
        name: (ours, gpuzip.recall(torch.from_numpy(ids.astype(np.int64)), truth))
        for name, ids in found.items()
    }


def search(setting: str, n: int, q: int, k: int) -> Duel:
    metric, bench = KINDS[setting].metric, _bench(setting, n)
    asked = bench.asked[:q].contiguous()
    ours = partial(bench.codes.search, asked, k, metric)
    _same_as_plain(ours, partial(bench.codes.search, asked[:_FEW], k, metric))
    fitting: Mapping[str, Any] = rivals.that_fit(bench.peers, n * q)
    peers = {name: partial(peer, k=k) for name, peer in fitting.items()}
    own = {name: peers.pop(name) for name in rivals.OWN & peers.keys()}
    case = {"setting": setting, "rows": n, "queries": q, "k": k}
    with threads(1):
        race = search_race("search", case, ours, peers, own, tolerance=1e-5 * (metric == "ip"))
    race.peers |= {name: partial(peer, q, k) for name, peer in bench.decoded.items()}
    return Duel(
        **vars(race),
        at_least={name: rivals.TARGETS[name](n, q) for name in rivals.TARGETS.keys() & race.peers.keys()},
        recalls=_recalls(setting, n) if k == 10 else {},
        scanned=words_of(bench.codes.data) if (q, n, k) == (1, SIZES[-1], 10) else [],
    )


def special(name: str, setting: str, q: int) -> Duel:
    """The default metric, a mask of half the rows, or candidates that are scored again by the float rows."""
    bench, x = _bench(setting, _MIDDLE), _rows()[:_MIDDLE]
    asked, mask = bench.asked[:q].contiguous(), torch.arange(_MIDDLE) % 2 == 0
    settings: dict[str, Any] = {"cosine": {}, "masked": {"mask": mask}, "rescored": {"rescore": x}}[name]
    ours = partial(bench.codes.search, asked, 10, "cosine" if name == "cosine" else "ip", **settings)
    _same_as_plain(ours, ours)
    index, peers = gpuzip.to_faiss(bench.codes, "ip"), {}
    if name == "masked" and setting == "int8":  # FAISS's IndexPQ takes no mask
        library: Any = faiss
        chosen = library.IDSelectorBitmap(np.packbits(mask.numpy(), bitorder="little"))
        how = library.SearchParameters(sel=chosen)
        peers[rivals.SQ] = lambda count: index.search(asked.numpy()[:count], 10, params=how)
    if name == "rescored":
        refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(x.numpy()))
        refined.k_factor = 4
        peers["IndexRefineFlat"] = lambda count: refined.search(asked.numpy()[:count], 10)
    case = {"setting": setting, "rows": _MIDDLE, "queries": q, "k": 10}
    race = search_race(f"search, {name}", case, ours, peers)
    race.peers["gpuzip without numba"] = partial(_plain, ours)
    return Duel(**vars(race), at_least=dict.fromkeys(race.peers, 1.0))


def plain(setting: str) -> Duel:
    """One query without numba's loops, beside the libraries that search codes of the size."""
    duel = search(setting, _MIDDLE, 1, 10)
    peers = {name: peer for name, peer in duel.peers.items() if name in rivals.FAISS}
    of_group: dict[str, Any] = {
        "group": "search without numba",
        "ours": partial(_plain, duel.ours),
        "peers": peers,
    }
    return replace(duel, **of_group, at_least=dict.fromkeys(peers, rivals.PLAIN_TARGET), scanned=[])


def _plain(call: Call) -> Any:
    with use_loops(False):
        return call()


def _same_as_plain(ours: Call, few: Call) -> None:
    """Our neighbours are those that plain torch finds."""
    mine, expected = ours(), _plain(few)
    count = len(expected.ids)
    found: list[Any] = [tuple(part[:count].numpy() for part in result) for result in (mine, expected)]
    same_neighbours(found[0], found[1], 1e-5)


def _cases(setting: str) -> list[Any]:
    """By number of rows, so that the peers of each are made once."""
    asked = {(n, q, 10) for n, q in product(SIZES, _ASKED)}
    if not is_quick():
        asked |= {(_LEAST, q, 10) for q in _ASKED}
        asked |= {(_MIDDLE, q, k) for q, k in product((1, 16), (100, 1000))}
    return [partial(search, setting, *case) for case in sorted(asked) if case[0] <= KINDS[setting].rows]


_LEFT_OUT = {"1024 bits"} if is_quick() else set()  # for want of time
_LEFT_OUT |= set() if find_spec("turbovec") else {"Lloyd-Max, 4 bits"}
_WITHOUT_NUMBA = ("PQ48x8", "PQ96x4", "384 bits", "int8", "RaBitQ, 1 bit", "RaBitQ, 4 bits")
_SPECIAL = {"PQ48x8": ("cosine", "masked", "rescored"), "int8": ("cosine", "masked")}
RACES = [case for setting in KINDS if setting not in _LEFT_OUT for case in _cases(setting)]
RACES += [
    partial(special, name, setting, q)
    for setting, names in _SPECIAL.items()
    for name, q in product(names, (1,) if is_quick() else (1, 16))
]
RACES += [partial(plain, setting) for setting in _WITHOUT_NUMBA]
