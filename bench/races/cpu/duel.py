"""A race by two clocks, with targets, recall and the share of the fastest reading of the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.clocks import CLOCKS, spread, threads, turns
from bench.measure import Call, peak_bytes
from bench.speeds import Race

Recalls = Mapping[str, tuple[float, float]]
"""Recall of ours and of a peer whose codes are others, by peer."""

_OURS, _ROOF = "gpuzip", "roof"
_SLACK = 0.01  # of recall: what another draw of queries changes
_SIDES = ("rounds", "seconds", "peer_seconds", "low", "ratio", "high")


@dataclass
class Duel(Race):
    """at_least: the ratio that is needed, by peer. scanned: what is read, where the roof is asked for."""

    at_least: Mapping[str, float] = field(default_factory=dict)
    recalls: Recalls = field(default_factory=dict)
    scanned: list[Tensor] = field(default_factory=list)

    def rows(self) -> Iterator[dict[str, Any]]:
        roof: dict[str, Call] = {_ROOF: self._read} if self.scanned else {}
        calls = {**self.peers, _OURS: self.ours, **roof}
        took = {}
        for clock in CLOCKS:
            with threads(clock.threads):
                took[clock.name] = turns(calls, clock)
        peaks = {name: peak_bytes(calls[name]) for name in (*self.peers, _OURS)}
        for name in sorted(self.peers.keys() | self.about.keys()) or [""]:
            times = [_times(clock.name, took[clock.name], name) for clock in CLOCKS]
            row = empty(self.group, self.case | {"peer": name}) | times[0] | times[1]
            if roof:
                row |= _shares(took["one"], name)
            row |= {"peak_bytes": peaks[_OURS], "peer_peak_bytes": peaks.get(name)}
            row["recall"], row["peer_recall"] = self.recalls.get(name, (None, None))
            yield judged(row | self.about.get(name, {}), self.at_least.get(name))

    def _read(self) -> None:
        for part in self.scanned:
            part.sum()


def words_of(data: Any) -> list[Tensor]:
    """The bytes of codes as int64, which torch reads fastest; up to 7 bytes of each plane are left out."""
    flat = [part.contiguous().view(-1) for part in getattr(data, "parts", (data,))]
    return [part[: len(part) // 8 * 8].view(torch.int64) for part in flat]


def empty(group: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """A row with all columns."""
    row = {"group": group, "setting": "", "rows": None, "queries": None, "k": None, "peer": ""} | dict(case)
    row |= {f"{clock.name}_{side}": None for clock in CLOCKS for side in _SIDES}
    more = ("at_least", "ok", "all_ok", "recall", "peer_recall", "roof_share", "peer_roof_share")
    return row | dict.fromkeys((*more, "peak_bytes", "peer_peak_bytes", "note"))


def judged(row: dict[str, Any], at_least: float | None) -> dict[str, Any]:
    """The row with whether it met its target by each clock; a recall below the peer's meets none."""
    row["at_least"] = at_least
    is_as_good = row["recall"] is None or row["recall"] >= row["peer_recall"] - _SLACK
    for ok, ratio in (("ok", row["one_ratio"]), ("all_ok", row["all_ratio"])):
        if at_least is not None and ratio is not None:
            row[ok] = is_as_good and ratio >= at_least
    return row


def _times(clock: str, took: dict[str, list[float]], peer: str) -> dict[str, Any]:
    ours, theirs = took[_OURS], took.get(peer)
    found = (*spread(theirs, ours),) if theirs else (None,) * 3
    values = (len(ours), median(ours), median(theirs) if theirs else None, *found)
    return {f"{clock}_{side}": value for side, value in zip(_SIDES, values, strict=True)}


def _shares(took: dict[str, list[float]], peer: str) -> dict[str, Any]:
    sides = {"roof_share": took[_OURS], "peer_roof_share": took.get(peer)}
    return {name: side and spread(took[_ROOF], side).median for name, side in sides.items()}
