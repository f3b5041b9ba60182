"""The choice of a codec: the smallest that is good enough, or the best that is small enough."""

from __future__ import annotations

from functools import partial

from gpuzip._core.bars import Bar
from gpuzip._core.progress import Progress, reporting, shown_as_one
from gpuzip._core.rows import Matrix, Rows
from gpuzip.choose.grid import Candidate, families
from gpuzip.choose.table import Table, Tried, table_of
from gpuzip.choose.target import Target
from gpuzip.choose.trial import Trials
from gpuzip.codecs.codes import Codes
from gpuzip.errors import QualityError
from gpuzip.storage import LONG_HEADER_BYTES, table_bytes

_ROUNDS = 4  # choices, as recall among all rows may be lower than among a sample
_IN_TABLE = 6  # codecs per family
_ARCHIVES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.999)  # cosines of archives in a table

Grid = dict[str, list[Candidate]]


def compress_for(
    who: str,
    x: Matrix,
    rows: Rows,
    target: Target,
    seed: int,
    queries: Matrix | None = None,
    progress: Progress = None,
    n: int | None = None,
) -> tuple[Codes, Table]:
    """Codes of all rows that meet a target, and the table of codecs tried. Raises GpuzipError if none do.

    progress: of the codecs tried, at most all of the grid. n: how many rows the target is for, where these
    are a sample of them; recall is then that of a search among the sample.
    """
    trials, progress = Trials(who, rows, target, seed, queries, n=n), shown_as_one(progress)
    choice = choice_of(who, trials, target)
    with reporting(who, progress, "codecs tried", choice.count) as trials.report:
        shown = progress if isinstance(progress, Bar) else None
        return _met(who, x, rows, target, trials, choice, shown)


def choice_of(who: str, trials: Trials, target: Target) -> Choice:
    """The search of the grid for these rows. Raises QualityError if nothing in it is small enough."""
    grid = families(trials.n, trials.d, trials.n_trained, partial(target.row_bytes, trials.n))
    return Choice(who, trials, grid, target)


def _met(
    who: str,
    x: Matrix,
    rows: Rows,
    target: Target,
    trials: Trials,
    choice: Choice,
    shown: Progress,
) -> tuple[Codes, Table]:
    shortfall = 0.0
    for _ in range(_ROUNDS):
        chosen = choice.cheapest(shortfall) if target.has_floor else choice.best()
        assert chosen.codec is not None
        codes = chosen.codec.encode(x, progress=shown)
        known = chosen if trials.sees_all or not target.search else trials.among_all(chosen, codes)
        if _reaches(known, target, 0.0):
            codes = Codes(chosen.codec.stamped(trials.held_out(known)), codes.data, codes.dtype)
            codes.why = choice.why(known)
            return codes, table_of([known if row.spec == known.spec else row for row in trials.tried])
        assert chosen.sure_recall is not None
        assert known.sure_recall is not None
        shortfall = chosen.sure_recall - known.sure_recall
    raise QualityError(
        f"{who}: {target.asked} cannot be reached among all {rows.n} rows. The nearest is "
        f"{_facts(known, target.rescore, True)}. Ask for less."
    )


def table_for(
    who: str,
    rows: Rows,
    target: Target,
    seed: int,
    queries: Matrix | None = None,
    progress: Progress = None,
) -> Table:
    """The table of some codecs of every family."""
    trials = Trials(who, rows, target, seed, queries)
    grid = families(rows.n, rows.d, trials.n_trained)
    some = [
        (c, name) for name, family in grid.items() for c in family[:: -max(1, -(-len(family) // _IN_TABLE))]
    ]
    with reporting(who, progress, "codecs tried", len(some)) as trials.report:
        for candidate, name in some:
            trials.of(candidate, name)
    return table_of([*trials.tried, *(trials.of_archive(cosine) for cosine in _ARCHIVES)])


def _reaches(tried: Tried, target: Target, more: float) -> bool:
    """Whether the floors are likely to hold on further rows; `more` is added to that of recall."""
    if target.min_cosine is not None and tried.sure_cosine < target.min_cosine:
        return False
    return target.min_recall is None or (tried.sure_recall or 0.0) >= target.min_recall + more


class Choice:
    """A search of the grid. In each family, larger codecs lose less."""

    count: int

    def __init__(self, who: str, trials: Trials, grid: Grid, target: Target) -> None:
        self._who, self._trials, self._target = who, trials, target
        self.count = sum(map(len, grid.values()))
        allowed = {name: list(filter(self._is_allowed, family)) for name, family in grid.items()}
        self._grid = {name: family for name, family in allowed.items() if family}
        if not self._grid:
            raise self._too_small("at least 1 byte per row is needed")

    def _is_allowed(self, candidate: Candidate) -> bool:
        """Whether codes are within `code_bytes`, and the codec adds at most a tenth (or is small)."""
        most, n = self._target.code_bytes, self._trials.n
        small = 16 * self._trials.d + 2048
        return most is None or (candidate.code_size <= most and candidate.state <= max(n * most / 10, small))

    def cheapest(self, more: float, best: Tried | None = None) -> Tried:
        """The smallest codec that reaches the floors. A family is searched below the smallest so far.

        best: one that reaches them and is not of the grid.
        """
        for name, family in self._grid.items():
            below = [c for c in family if best is None or c.nbytes(self._trials.n) < best.nbytes]
            first = self._first(below, name, more, near=best is not None)
            if first is not None:
                found = self._trials.of(first, name)
                best = found if best is None or found.nbytes < best.nbytes else best
        if best is None:
            raise self._unreachable()
        if not self._is_small(best):
            raise self._too_large(best)
        return best

    def _first(self, family: list[Candidate], name: str, more: float, near: bool) -> Candidate | None:
        """The smallest of a family that reaches the floors. near: start at the largest codecs."""
        low, high = 0, len(family)  # codecs below low do not reach them; codecs from high on do
        step = 1
        while near and low < high:
            at = max(low, high - step)
            if not self._reaches(family[at], name, more):
                low = at + 1
                break
            high, step = at, 2 * step

        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._reaches(family[middle], name, more) else (middle + 1, high)
        return family[low] if low < len(family) else None

    def best(self) -> Tried:
        """The best among the largest codec of each family that is small enough."""
        largest = [found for name, family in self._grid.items() if (found := self._largest(name, family))]
        if not largest:
            sizes = [c.nbytes(self._trials.n) for family in self._grid.values() for c in family]
            least = _of_file(min(sizes))
            raise self._too_small(
                f"{least} bytes are needed for the smallest codes, their levels and headers"
            )
        return max(largest, key=lambda tried: -tried.mse if tried.sure_recall is None else tried.sure_recall)

    def _largest(self, name: str, family: list[Candidate]) -> Tried | None:
        most = self._target.max_bytes
        small = [c for c in family if most is None or _of_file(c.nbytes(self._trials.n)) <= most]
        for candidate in reversed(small):  # a fitted codec can be larger than estimated
            found = self._trials.of(candidate, name)
            if self._is_small(found):
                return found
        return None

    def _is_small(self, tried: Tried) -> bool:
        most = self._target.max_bytes
        return most is None or _of_file(tried.nbytes) <= most

    def _reaches(self, candidate: Candidate, name: str, more: float) -> bool:
        return _reaches(self._trials.of(candidate, name), self._target, more)

    def why(self, chosen: Tried) -> str:
        """The reason for the choice, in a sentence or two."""
        count, rescore = len(self._trials.tried), self._target.rescore
        reason = "loses least of" if not self._target.has_floor else "is the smallest that is sure enough of"
        text = f"{chosen.spec} {reason} {count} codecs tried for {self._target.asked}: "
        text += f"{_facts(chosen, rescore)}."
        if chosen.recall is not None:
            whose = "the queries given" if self._trials.has_queries else "queries like the rows"
            text += f" Recall is by {self._target.metric}, for {whose}."
        smaller = [row for row in self._trials.tried if row.nbytes < chosen.nbytes]
        if self._target.has_floor and smaller:
            text += f" The next smaller is {_facts(max(smaller, key=lambda row: row.nbytes), rescore, True)}."
        return text

    def _too_small(self, needed: str) -> QualityError:
        n, d = self._trials.n, self._trials.d
        return QualityError(f"{self._who}: {self._target.asked} is too small for {n} x {d}: {needed}.")

    def _unreachable(self) -> QualityError:
        target = self._target
        nearest = max(self._trials.tried, key=lambda row: _margin(row, target))
        return QualityError(
            f"{self._who}: {target.asked} cannot be reached. The nearest is "
            f"{_facts(nearest, target.rescore, True)}. Ask for its likely values, or less."
        )

    def _too_large(self, cheapest: Tried) -> QualityError:
        text = (
            f"{self._who}: {self._target.asked} cannot be reached together. The smallest that is good enough "
        )
        text += f"is {_facts(cheapest, self._target.rescore, True)}"
        try:
            inside = f"; the best within the size is {_facts(self.best(), self._target.rescore, True)}"
        except QualityError:
            inside = "; no codec is within the size"
        return QualityError(f"{text}{inside}. Ask for one of these.")


def _of_file(nbytes: int) -> int:
    """Upper bound for the bytes of a file, given those of codes and codec."""
    return nbytes + LONG_HEADER_BYTES + table_bytes(nbytes)


def _margin(row: Tried, target: Target) -> float:
    """The smaller excess over the floors; negative if one is missed."""
    margins = []
    if target.min_cosine is not None:
        margins.append(row.sure_cosine - target.min_cosine)
    if target.min_recall is not None:
        margins.append((row.sure_recall or 0.0) - target.min_recall)
    return min(margins)


def _facts(row: Tried, rescore: bool, named: bool = False) -> str:
    """Size and quality in words. rescore: whether the bound is that of the rescored recall."""
    text = f"{row.spec} of " if named else ""
    text += f"{row.code_size} bytes per row, {row.nbytes} in all, {row.ratio:.1f}x smaller"
    text += f", cosine {row.row_cosine:.4f} (likely {row.sure_cosine:.4f} or more)"
    if row.recall is None or row.rescored_recall is None:
        return text
    likely = f" (likely {row.sure_recall:.4f} or more)"
    plain, rescored = ("", likely) if rescore else (likely, "")
    return f"{text}, recall {row.recall:.4f}{plain}, rescored {row.rescored_recall:.4f}{rescored}"
