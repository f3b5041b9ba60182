"""The retrieval corpus of the quantization recipe, 593,891 x 384: how small, how fast, how good.

    python -m examples.rag_593k [--rows 593891] [--folder build/rag]

Float32 rows lie in a memory map; every store is built from it in blocks. Real sentence embeddings come first
(the large set where it was made, else the shipped one); a further row lies between a real row and one of
its 8 nearest, at a random place, plus noise of length 0.1, scaled to unit length. Queries are real, and held
apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from torch import Tensor

import gpuzip
from bench.measure import PeakMemory
from examples.sample import Sample, load_large, load_sample
from gpuzip import BinaryQuantizer, Codes, HalfQuantizer, ScalarQuantizer
from gpuzip.codecs import Codec

ROWS = 593_891
K = 10

_NEIGHBOURS = 8
_NOISE = 0.1
_BLOCK = 16_384

Search = Callable[[Tensor], Tensor]  # (Q, D) -> (Q, K) ids


@dataclass(frozen=True)
class Row:
    """One line of the table. nbytes: of what is searched, in memory. peak: bytes while it was built."""

    name: str
    nbytes: int
    build_seconds: float
    peak_bytes: int | None
    qps_1: float
    qps_256: float
    recall: float
    similarity: float


def real_rows() -> Sample:
    try:
        return load_large()
    except FileNotFoundError:
        return load_sample()


def corpus_blocks(real: Tensor, n: int) -> Iterator[Tensor]:
    """n rows in blocks: the real ones, then made ones; the same for every run."""
    yield from real[:n].split(_BLOCK)
    near = _nearest(real) if n > len(real) else torch.empty(0)
    for start in range(len(real), n, _BLOCK):
        g = torch.Generator().manual_seed(start)
        size = min(_BLOCK, n - start)
        a = torch.randint(len(real), (size,), generator=g)
        b = near[a, torch.randint(_NEIGHBOURS, (size,), generator=g)]
        place = torch.rand(size, 1, generator=g)
        noise = torch.randn(size, real.shape[1], generator=g) * (_NOISE / real.shape[1] ** 0.5)
        yield torch.nn.functional.normalize(torch.lerp(real[a], real[b], place) + noise)


def _nearest(real: Tensor) -> Tensor:
    """(n, 8) ids of the nearest other rows."""
    parts = [(part @ real.T).topk(_NEIGHBOURS + 1).indices[:, 1:] for part in real.split(2048)]
    return torch.cat(parts)


def corpus(folder: Path, real: Tensor, n: int) -> np.ndarray:
    """The corpus as a map of float32, written once."""
    path = folder / f"corpus-{n}-of-{len(real)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        matrix = np.lib.format.open_memmap(fresh, "w+", np.float32, (n, real.shape[1]))
        at = 0
        for block in track(corpus_blocks(real, n), "making rows", -(-n // _BLOCK)):
            matrix[at : at + len(block)] = block.numpy()
            at += len(block)
        matrix.flush()
        fresh.rename(path)
    rows: np.ndarray = np.load(path, mmap_mode="c")
    return rows


def float_search(x: np.ndarray) -> Search:
    """Exact inner products of float32 rows, a block at a time."""
    rows = torch.from_numpy(np.asarray(x).view(np.ndarray))

    def search(queries: Tensor) -> Tensor:
        best, ids = queries.new_empty(len(queries), 0), torch.empty((len(queries), 0), dtype=torch.int64)
        for start in range(0, len(rows), 65_536):
            found = (queries @ rows[start : start + 65_536].T).topk(K)
            best, ids = torch.cat([best, found.values], 1), torch.cat([ids, found.indices + start], 1)
            best, at = best.topk(K)
            ids = ids.gather(1, at)
        return ids

    return search


def build(codec: Codec, x: np.ndarray, name: str) -> tuple[Codes, tuple[float, int | None]]:
    """Codes of the map; seconds, and the most memory that it took."""
    with Progress(transient=True) as bar, PeakMemory() as memory:
        task = bar.add_task(f"building {name}", total=len(x))
        start = time.perf_counter()
        codes = codec.fit(x).encode(x, progress=lambda done, _: bar.update(task, completed=done))
        seconds = time.perf_counter() - start
    return codes, (seconds, memory.peak)


def per_second(search: Search, queries: Tensor, rounds: int) -> float:
    search(queries)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        search(queries)
        times.append(time.perf_counter() - start)
    return len(queries) / median(times)


class Judge:
    """Compares what is found with the exact neighbours of the float rows."""

    def __init__(self, x: np.ndarray, queries: Tensor) -> None:
        self._x, self.queries = x, queries
        self._truth = float_search(x)(queries)
        self._most = self._similarity(self._truth)

    def _similarity(self, ids: Tensor) -> float:
        rows = torch.from_numpy(self._x[ids.numpy()])
        return float((rows * self.queries[:, None]).sum(-1, dtype=torch.float64).mean())

    def row(self, name: str, nbytes: int, built: tuple[float, int | None], search: Search) -> Row:
        """recall@10, and the mean float similarity of what is found over that of the true neighbours."""
        ids = search(self.queries)
        fast = per_second(search, self.queries[:256], 3)
        one = per_second(search, self.queries[:1], 9)
        recall = gpuzip.recall(ids, self._truth)
        return Row(name, nbytes, *built, one, fast, recall, self._similarity(ids) / self._most)


def measure(x: np.ndarray, queries: Tensor) -> Iterator[Row]:
    """Every way to store the corpus; x is a map of float32."""
    judge = Judge(x, queries)
    yield judge.row("float32", x.nbytes, (0.0, None), float_search(x))
    half, took = build(HalfQuantizer(), x, "float16")
    yield judge.row("float16", half.nbytes, took, lambda q: half.search(q, K, "ip")[1])
    int8, took = build(ScalarQuantizer(), x, "int8")
    yield judge.row("int8", int8.nbytes, took, lambda q: int8.search(q, K, "ip")[1])
    bits, took = build(BinaryQuantizer(), x, "binary")
    searches: dict[str, Search] = {
        "binary, Hamming": lambda q: bits.search(q, K, "hamming")[1],
        "binary, float query": lambda q: bits.search(q, K, "ip")[1],
        "binary, Hamming, then its bits x4": lambda q: bits.search(
            q, K, "ip", rescore=True, candidates="hamming"
        )[1],
        "binary, Hamming, then int8 x4": lambda q: bits.search(
            q, K, "ip", rescore=int8, candidates="hamming"
        )[1],
        "binary, float query, then int8 x4": lambda q: bits.search(q, K, "ip", rescore=int8)[1],
        "binary, float query, then float32 map x4": lambda q: bits.search(q, K, "ip", rescore=x)[1],
    }
    for name, search in searches.items():
        yield judge.row(name, bits.nbytes, took, search)


def table(rows: list[Row], n: int, d: int) -> Table:
    shown = Table(title=f"{n:,} x {d}: in memory, exact neighbours by inner product")
    for head in (
        "store",
        "MB",
        "smaller",
        "build",
        "peak",
        "q/s, 1",
        "q/s, 256",
        "recall@10",
        "similarity kept",
    ):
        shown.add_column(head, justify="left" if head == "store" else "right")
    for row in rows:
        peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:,.0f} MB"
        shown.add_row(
            *(row.name, f"{row.nbytes / 1e6:,.1f}", f"{4 * n * d / row.nbytes:.1f}x"),
            *(f"{row.build_seconds:.1f} s", peak, f"{row.qps_1:,.0f}", f"{row.qps_256:,.0f}"),
            *(f"{row.recall:.3f}", f"{100 * row.similarity:.1f}%"),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.rag_593k", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, default=Path("build/rag"), help="where the corpus is kept")
    chosen = parser.parse_args()
    sample = real_rows()
    x = corpus(chosen.folder, sample.embeddings, chosen.rows)
    console = Console()
    console.print(
        f"{min(len(sample.embeddings), len(x)):,} real rows of {len(x):,}, {len(sample.queries):,} queries"
    )
    rows = list(measure(x, sample.queries))
    console.print(table(rows, *x.shape))


if __name__ == "__main__":
    main()
