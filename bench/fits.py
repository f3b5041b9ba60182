"""Time and memory to find Lloyd-Max levels, beside scikit-learn's k-means as smallfry calls it.

    python -m bench.fits [--rows 20000]

Ours is timed on a whole table, and both sides in turns on the same million of its values, since k-means
takes minutes for them all. Writes bench/results/fits.csv, unless on fewer rows; the exit status is 1 when
a fit misses its target or scikit-learn's levels have the smaller error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.matrices import made_words, token_matrix
from bench.measure import peak_bytes, seconds
from bench.record import finish
from bench.weight_peers import smallfry_levels, version_of
from gpuzip import LloydMaxQuantizer

#: Rows of made word vectors.
ROWS = 400_000
#: Seconds on two cores, by table.
TARGETS = {"tokens of all-MiniLM-L6-v2": 2.0, "made word vectors": 60.0}

_VALUES, _ROUNDS = 1_000_000, 3


def measured(table: str, x: Tensor, bits: int) -> dict[str, Any]:
    codec, values = LloydMaxQuantizer(bits), _values(x)

    def ours() -> Tensor:
        return codec.fit(values).codebook[0, :, 0]

    def theirs() -> Tensor:
        return smallfry_levels(values, bits)

    codec.fit(x[:1000])
    errors = [_error(values, levels()) for levels in (ours, theirs)]
    peaks = [peak_bytes(call) for call in (lambda: codec.fit(x), ours, theirs)]
    whole, mine, others = (
        median(times)
        for times in zip(
            *(map(seconds, (lambda: codec.fit(x), ours, theirs)) for _ in range(_ROUNDS)), strict=True
        )
    )
    about = {"table": table, "rows": len(x), "d": x.shape[1], "bits": bits, "rounds": _ROUNDS}
    target = TARGETS[table]
    return (
        about
        | {"seconds": whole, "peak_bytes": peaks[0], "target_seconds": target, "values": len(values)}
        | {"some_seconds": mine, "some_peak_bytes": peaks[1], "some_mse": errors[0]}
        | {"peer": "scikit-learn", "peer_seconds": others, "peer_peak_bytes": peaks[2], "peer_mse": errors[1]}
        | {"version": version_of("scikit-learn")}
        | {"ratio": others / mine, "ok": whole <= target and errors[0] <= errors[1]}
    )


def _values(x: Tensor) -> Tensor:
    """(n, 1): of the whole table, drawn with seed 0."""
    at = torch.randint(x.numel(), (min(_VALUES, x.numel()),), generator=torch.Generator().manual_seed(0))
    return x.view(-1)[at].view(-1, 1)


def _error(values: Tensor, levels: Tensor) -> float:
    """Mean squared error of values at their nearest levels, which ascend."""
    nearest = levels[torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)]
    return float((values - nearest).double().square().mean())


def rows(few: int | None) -> Iterator[dict[str, Any]]:
    tokens, words = TARGETS
    yield measured(tokens, token_matrix()[:few], 4)
    yield measured(words, made_words(few or ROWS), 2)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fits", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, help="of each table; writes nothing")
    few = parser.parse_args().rows
    heads = "table | fit | target | 1M values | scikit-learn | ratio | mse | scikit-learn's | "
    cells = (
        "{rows:,} x {d}, {bits} bits | {seconds:s} | {target_seconds:s} | {some_seconds:s} | "
        "{peer_seconds:s} | {ratio:x} | {some_mse:.4g} | {peer_mse:.4g} | {ok:ok}"
    )
    return finish("fits", list(rows(few)), heads, cells, title="Lloyd-Max levels", whole=few is None)


if __name__ == "__main__":
    sys.exit(main())
