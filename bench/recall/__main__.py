"""Recall per byte: gpuzip's codecs and FAISS's at the same bytes per vector, on real embeddings.

    python -m bench.recall [word ...] [--size 48 ...] [--minutes 6]

On the large set (`python -m examples.make_sample --large`): trained on 30,000 rows, all 40,000 searched by
1,000 queries that are not among them. Each method runs in a process of its own, which is ended after six
minutes; its larger sizes are then not tried. A row goes into bench/results/recall.csv as soon as it is there,
in the place of an older one of the same method: with words only methods run that have one in their name, so
that a run can be in parts. The exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial

from bench import apart, record
from bench.checkout import put, read
from bench.measure import is_quick
from bench.peers import same_threads
from bench.recall.methods import SIZES, Method, methods
from bench.recall.rows import Data, Row, measured_alone, without_figures
from bench.recall.targets import gaps, missed

#: That a method may take.
MINUTES = 6


def in_a_process(method: Method, data: Data, minutes: float) -> Row:
    """`measured` in a process of its own, ended after so many minutes."""
    (answer,) = apart.each(measured_alone, [method], 60 * minutes)
    if answer.result is not None:
        return answer.result
    if "died" in answer.death:
        raise RuntimeError(f"{method.label}: {answer.death}")
    return without_figures(method, data, f"stopped after {minutes:g} minutes, still {answer.step}")


def rows(chosen: list[Method], data: Data, run: Callable[[Method, Data], Row]) -> Iterator[Row]:
    """From the smallest size on; the larger sizes of a method that was stopped are not tried."""
    stopped: dict[str, int] = {}
    for method in sorted(chosen, key=lambda one: one.size):
        if method.form in stopped:
            yield without_figures(method, data, f"not tried: too slow at {stopped[method.form]} bytes")
            continue
        row = run(method, data)
        if row["recall"] is None:
            stopped[method.form] = method.size
        yield row


def chosen_methods(words: list[str], sizes: list[int], d: int) -> Iterator[Method]:
    """Those with one of the words in their names, of these sizes; says which of them are not there."""
    for one in methods(d):
        if one.size in sizes and (not words or any(word.lower() in one.label.lower() for word in words)):
            why_not = one.why_not(d)
            if why_not is None:
                yield one
            else:
                print(f"{one.label} is left out: {why_not}")


def keep(row: Row, d: int) -> None:
    """Put a row where an older one of its method is, or where it belongs."""
    found = {(one["side"], one["method"]): one for one in read("recall")}
    found[row["side"], row["method"]] = record.stamped(row)
    order = [(one.side, one.recipe) for one in methods(d)]
    put("recall", [found[name] for name in order if name in found])


def _line(row: Row) -> str:
    name = f"{row['size']:>3} {row['side']:<6} {row['method']:<55}"
    if row["recall"] is None:
        return f"{name} {row['note']}"
    quality = f"cosine {row['row_cosine']:.4f} of {row['bound']:.4f}, recall {row['recall']:.4f}"
    speed = f"{row['train_seconds']:.1f} s, {row['encode_rows_per_second']:,.0f} rows/s"
    return f"{name} {row['row_bytes']:g} bytes, {quality}, rescored {row['rescored_recall']:.4f}, {speed}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.recall", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("words", nargs="*", metavar="word", help="only methods with one in their name")
    parser.add_argument("--size", type=int, nargs="+", choices=SIZES, default=SIZES, help="bytes per vector")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that a method may take")
    asked = parser.parse_args()
    same_threads()
    try:
        data = Data.chosen()
    except FileNotFoundError as error:
        print(error)
        return 1
    d = data.x.shape[1]
    chosen = list(chosen_methods(asked.words, asked.size, d))
    for row in rows(chosen, data, partial(in_a_process, minutes=asked.minutes)):
        print(_line(row), flush=True)
        if not is_quick():
            keep(row, d)
    if is_quick():
        return 0
    found = read("recall")
    print(*gaps(found), *missed(found), sep="\n")
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
