"""Whether outcomes that are asked for are reached on rows that were never seen, and in how many bytes.

    python -m bench.outcomes [--rows 20000]

`gpuzip.compress` never sees 2,000 rows of each matrix, which are the queries (or the rows whose cosine
counts) afterwards. The best of the grid is the one of fewest bytes that reaches the target on them, fitted on
all other rows: of every family those below the chosen one are tried, from the largest, until one does not.
Writes bench/results/outcomes.csv, unless on fewer rows; the exit status is 1 when a target is missed or
takes more than a tenth above the best.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench.matrices import word_vectors
from bench.measure import is_quick
from bench.record import main
from examples.rag_593k import real_rows
from gpuzip import Codes, from_spec
from gpuzip._core.rows import Rows
from gpuzip.choose.grid import Candidate, families
from gpuzip.search.blocks import nearest

#: Rows of a matrix that are compressed.
ROWS = 20_000
#: Bytes above the best of the grid.
SLACK = 0.1
TARGETS: list[dict[str, Any]] = [
    {"min_recall": 0.95},
    {"min_recall": 0.95, "rescore": True},
    {"min_cosine": 0.98},
]

_UNSEEN, _K = 2000, 10


def heavy_tailed() -> Tensor:
    """Sentence embeddings, values to the power 1.7 and columns of lognormal deviations."""
    x = real_rows().embeddings
    scale = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(1)).mul(0.8).exp()
    standard = x / x.std(0).clamp(min=1e-6)  # two columns are 0 throughout
    return standard.sign() * standard.abs() ** 1.7 * scale


MATRICES: dict[str, Callable[[], Tensor]] = {
    "sentence embeddings": lambda: real_rows().embeddings,
    "word vectors": word_vectors,
    "heavy-tailed columns": heavy_tailed,
}


class Judge:
    """What codecs do to rows that none of them has seen."""

    def __init__(self, x: Tensor, rows: int) -> None:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(99))
        self.unseen = x[order[:_UNSEEN]].float()
        self.given = x[order[_UNSEEN : _UNSEEN + rows]].float().contiguous()
        self._truth = nearest(Rows("judge", self.given).blocks(), self.unseen, _K, "cosine")
        self._known: dict[str, tuple[int, list[float]]] = {}

    def quality(self, codes: Codes, target: dict[str, Any]) -> float:
        return self._measured(codes)[_place(target)]

    def of(self, candidate: Candidate, target: dict[str, Any]) -> tuple[int, float]:
        """Bytes and quality of a codec that was fitted on all rows that were given."""
        if candidate.spec not in self._known:
            codes = from_spec(candidate.spec).fit(self.given).encode(self.given)
            self._known[candidate.spec] = codes.nbytes, self._measured(codes)
        nbytes, measured = self._known[candidate.spec]
        return nbytes, measured[_place(target)]

    def _measured(self, codes: Codes) -> list[float]:
        """Recall of the codes, recall after rescoring, and the mean cosine of unseen rows."""
        if codes.codec.scores_are_of_decoded_rows:
            found = nearest([(0, codes.decode(torch.float32))], self.unseen, 4 * _K, "cosine")
        else:
            found = codes.search(self.unseen, 4 * _K)[1]
        hits = (found[:, :, None] == self._truth[:, None, :]).any(2).double()
        recalls = [float(hits[:, :count].sum(1).mean() / _K) for count in (_K, 4 * _K)]
        cosine = torch.cosine_similarity(codes.codec.encode(self.unseen).decode(), self.unseen)
        return [*recalls, float(cosine.mean())]


def _place(target: dict[str, Any]) -> int:
    """Where `_measured` has what a target asks for."""
    return 2 if "min_cosine" in target else int("rescore" in target)


def measured(name: str, judge: Judge, target: dict[str, Any]) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    k = _K if "min_recall" in target else None
    codes, table = gpuzip.compress(judge.given, k=k, return_table=True, **target)
    took = time.perf_counter() - start, time.process_time() - cpu
    asked, floor = next((key, value) for key, value in target.items() if key != "rescore")
    chosen = next(row for row in table if row.spec == codes.codec.spec)
    best, best_bytes = _best(judge, target, chosen.spec, codes.nbytes, floor)
    unseen = judge.quality(codes, target)
    extra = codes.nbytes / best_bytes - 1
    return (
        {"matrix": name, "rows": len(judge.given), "d": judge.given.shape[1]}
        | {"target": asked + " rescored" * ("rescore" in target), "floor": floor}
        | {"codec": chosen.spec, "code_size": chosen.code_size, "nbytes": codes.nbytes}
        | {"likely": chosen.sure_cosine if asked == "min_cosine" else chosen.sure_recall, "unseen": unseen}
        | {"best": best, "best_nbytes": best_bytes, "extra": extra, "tried": len(table)}
        | {"seconds": took[0], "cpu_seconds": took[1], "ok": unseen >= floor and extra <= SLACK}
    )


def _best(judge: Judge, target: dict[str, Any], spec: str, nbytes: int, floor: float) -> tuple[str, int]:
    """The codec of the grid with the fewest bytes that reaches the target on unseen rows."""
    n, d = judge.given.shape
    for family in families(n, d).values():
        for candidate in reversed(family):
            if candidate.nbytes(n) >= nbytes:
                continue
            size, quality = judge.of(candidate, target)
            if quality < floor:
                break
            spec, nbytes = (candidate.spec, size) if size < nbytes else (spec, nbytes)
    return spec, nbytes


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    """In a quick run only the sentence embeddings, without the slowest target."""
    names, targets = (list(MATRICES)[:1], TARGETS[1:]) if is_quick() else (list(MATRICES), TARGETS)
    for name in names:
        judge = Judge(MATRICES[name](), few or ROWS)
        for target in targets:
            yield measured(name, judge, target)


if __name__ == "__main__":
    sys.exit(main("outcomes", __doc__, measure))
