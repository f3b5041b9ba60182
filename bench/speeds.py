"""Speeds beside other libraries: the answers are compared, then all sides are timed in turns.

    python -m bench.speeds KIND [word ...]

Kinds are the files of bench/races: pq, codes, lookup. With words only the functions run that have one in
their name, such as `search`; a run of all of them replaces bench/results/KIND.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from bench.agree import Found, same_neighbours
from bench.measure import Call, in_turns, pace, seconds
from bench.peers import same_threads
from bench.record import finish
from gpuzip.ops import use_loops

KINDS = ("pq", "codes", "lookup")
Search = Callable[[int], Found]
"""A search for the first so many queries."""

_OURS, _PLAIN = "gpuzip", "plain torch"
_FEW = 16  # queries by which a search is checked and its time estimated


@dataclass
class Race:
    """Calls that do the same work. case: what they work on. about: more to record of a peer."""

    group: str
    case: dict[str, Any]
    ours: Call
    peers: dict[str, Any]
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each peer, with gpuzip's time with numba and in plain torch beside it."""

        def plain() -> Any:
            with use_loops(False):
                return self.ours()

        with use_loops(True):
            found = in_turns({_PLAIN: plain} | self.peers | {_OURS: self.ours})
        ours, slow = found.pop(_OURS), found.pop(_PLAIN).median
        for name in sorted(found.keys() | self.about.keys()):
            peer = found.get(name)
            least = {
                "peer_least_seconds": peer and peer.least,
                "least_ratio": peer and peer.least / ours.least,
            }
            yield (
                {"group": self.group, "queries": None, **self.case, "peer": name, **ours.beside(peer)}
                | {"least_seconds": ours.least, **least}
                | {"plain_seconds": slow, "plain_ratio": peer and peer.median / slow}
                | {"recall": None, "note": None, **self.about.get(name, {})}
            )


def search_race(
    group: str,
    case: dict[str, Any],
    ours: Call,
    peers: Mapping[str, Search],
    own: Mapping[str, Search] | None = None,
    tolerance: float = 1e-5,
) -> Race:
    """Check the neighbours of peers and leave out those that take too long. own: peers with other codes."""
    race, q, own = Race(group, case, ours, {}), case["queries"], own or {}
    found: Any = tuple(part.numpy() for part in ours())
    for name, search in {**peers, **own}.items():
        few = min(q, _FEW)
        theirs = search(few)
        expected = seconds(lambda: search(few)) * q / few  # noqa: B023 - called at once
        if expected <= pace().longest:
            race.peers[name] = lambda search=search: search(q)
            few, theirs = q, search(q)
        else:
            race.about[name] = {"note": f"not timed: about {expected:.0f} s a call"}
        if name not in own:
            same_neighbours((found[0][:few], found[1][:few]), theirs, tolerance)
    return race


def measured(kind: str, words: list[str]) -> Iterator[dict[str, Any]]:
    for make in import_module(f"bench.races.{kind}").RACES:
        name = make.func.__name__
        if not words or any(word in name for word in words):
            race = make()
            print(f"{name}: {race.group}, {race.case}", file=sys.stderr, flush=True)
            yield from race.rows()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.speeds", description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("words", nargs="*", metavar="word", help="only functions with one in their name")
    chosen = parser.parse_args()
    same_threads()
    return finish(chosen.kind, list(measured(chosen.kind, chosen.words)), whole=not chosen.words)


if __name__ == "__main__":
    sys.exit(main())
