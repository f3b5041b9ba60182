"""Any calls in any order, beside a plain dict of rows."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

import gpuzip
from tests.dataset.plain import Plain, check_same, half, rows_of

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 40)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
SEEDS = st.integers(0, 50)


class Machine(RuleBasedStateMachine):
    """A dataset, what it must hold, and snapshots that must stay."""

    @initialize(kind=st.sampled_from(["int64", "string", None]))
    def create(self, kind: Any) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kind, self.next = kind, 0
        self.data = gpuzip.Dataset.create(self.folder / "d", half(), ids=kind)
        self.plain = Plain()
        self.kept: list[tuple[gpuzip.dataset.Snapshot, Plain]] = []

    def some(self, draws: Any, most: int = 6) -> list[Any]:
        return draws.draw(st.lists(st.sampled_from(self.plain.ids), max_size=most, unique=True))  # type: ignore[no-any-return]

    @rule(draws=st.data(), seed=SEEDS)
    def append(self, draws: Any, seed: int) -> None:
        of_kind: Any = TEXTS if self.kind == "string" else NUMBERS
        if self.kind is None:
            ids = list(range(self.next, self.next + draws.draw(st.integers(0, 6))))
            assert self.data.append(rows_of(len(ids), seed)).tolist() == ids
            self.next += len(ids)
        else:
            ids = draws.draw(st.lists(of_kind, max_size=6, unique=True))
            if set(ids) & set(self.plain.ids):
                with pytest.raises(gpuzip.GpuzipError, match="new"):
                    self.data.append(rows_of(len(ids), seed), ids)
                return
            self.data.append(rows_of(len(ids), seed), ids)
        self.plain.append(rows_of(len(ids), seed), ids)

    @precondition(lambda self: self.plain.rows)
    @rule(draws=st.data())
    def remove(self, draws: Any) -> None:
        ids = self.some(draws)
        self.data.remove(ids)
        self.plain.remove(ids)

    @precondition(lambda self: self.plain.rows)
    @rule(draws=st.data(), seed=SEEDS)
    def update(self, draws: Any, seed: int) -> None:
        ids = self.some(draws)
        self.data.update(ids, rows_of(len(ids), seed))
        self.plain.update(ids, rows_of(len(ids), seed))

    @rule(removed=st.floats(0, 1), small=st.integers(0, 30))
    def compact(self, removed: float, small: int) -> None:
        self.data.compact(removed=removed, small=small)

    @rule(draws=st.data(), seed=SEEDS)
    def another_writes(self, draws: Any, seed: int) -> None:
        other = gpuzip.Dataset.open(self.folder / "d")
        mine, self.data = self.data, other
        self.append(draws, seed)
        self.data = mine.refresh()

    @rule()
    def reopen(self) -> None:
        self.data = gpuzip.Dataset.open(self.folder / "d")

    @rule()
    def snapshot(self) -> None:
        plain = Plain()
        plain.rows = dict(self.plain.rows)
        self.kept = [*self.kept[-1:], (self.data.snapshot(), plain)]

    @rule()
    def verify(self) -> None:
        self.data.verify()

    @precondition(lambda self: self.plain.rows)
    @rule(draws=st.data(), seed=SEEDS, k=st.integers(1, 9), metric=st.sampled_from(["l2", "ip", "cosine"]))
    def search(self, draws: Any, seed: int, k: int, metric: Any) -> None:
        allowed, queries = self.some(draws, 20), rows_of(2, seed)
        values, ids = self.data.search(queries, k, metric, filter=allowed)
        want, named = self.plain.search(self.data.codec, queries, k, metric, set(allowed))
        assert torch.equal(values, want)
        assert ids.tolist() == named

    @precondition(lambda self: self.plain.rows)
    @rule(draws=st.data())
    def rows(self, draws: Any) -> None:
        ids = self.some(draws)
        want = torch.stack([self.plain.rows[id] for id in ids]) if ids else torch.empty(0, 8)
        assert torch.equal(self.data.rows(ids), want)

    @invariant()
    def is_as_plain(self) -> None:
        if hasattr(self, "data"):
            check_same(self.data, self.plain)
            for kept, plain in self.kept:
                check_same(kept, plain)  # type: ignore[arg-type]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def test_a_few_calls_in_any_order():
    run(Machine, settings=settings(max_examples=2, stateful_step_count=10, derandomize=True, **QUIET))  # type: ignore[arg-type]


@pytest.mark.full
def test_5000_calls_in_any_order():
    run(Machine, settings=settings(max_examples=100, stateful_step_count=50, **QUIET))  # type: ignore[arg-type]
