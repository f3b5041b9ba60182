"""Time and memory to find Lloyd-Max levels, beside scikit-learn's k-means as smallfry calls it.

    python -m bench.fits [--rows 20000]

Ours is timed on a whole table, and both sides in turns on the same million of its values, since k-means
takes minutes for them all. Writes bench/results/fits.csv, unless on fewer rows; the exit status is 1 when
a fit misses its target or scikit-learn's levels have the smaller error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.matrices import made_words, token_matrix
from bench.measure import in_turns
from bench.record import main
from bench.weight_peers import drawn, smallfry_levels, version_of
from gpuzip import LloydMaxQuantizer

#: Rows of made word vectors.
ROWS = 400_000
#: Seconds on two cores, by table.
TARGETS = {"tokens of all-MiniLM-L6-v2": 2.0, "made word vectors": 60.0}

_VALUES, _ROUNDS = 1_000_000, 3


def measured(table: str, x: Tensor, bits: int) -> dict[str, Any]:
    codec, values = LloydMaxQuantizer(bits), drawn(x, _VALUES)

    def ours() -> Tensor:
        return codec.fit(values).codebook[0, :, 0]

    def theirs() -> Tensor:
        return smallfry_levels(values, bits)

    codec.fit(x[:1000])
    error, their_error = (_error(values, levels()) for levels in (ours, theirs))
    took = in_turns({"whole": lambda: codec.fit(x), "ours": ours, "theirs": theirs}, _ROUNDS)
    whole, some, target = took["whole"], took["ours"].beside(took["theirs"]), TARGETS[table]
    mine = {f"some_{name}": some[name] for name in ("seconds", "peak_bytes")}
    return (
        {"table": table, "rows": len(x), "d": x.shape[1], "bits": bits, "values": len(values)}
        | some
        | {"seconds": whole.median, "peak_bytes": whole.peak_bytes, "target_seconds": target}
        | mine
        | {"some_mse": error, "peer": "scikit-learn", "peer_mse": their_error}
        | {"version": version_of("scikit-learn"), "ok": whole.median <= target and error <= their_error}
    )


def _error(values: Tensor, levels: Tensor) -> float:
    """Mean squared error of values at their nearest levels, which ascend."""
    nearest = levels[torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)]
    return float((values - nearest).double().square().mean())


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    tokens, words = TARGETS
    yield measured(tokens, token_matrix()[:few], 4)
    yield measured(words, made_words(few or ROWS), 2)


if __name__ == "__main__":
    sys.exit(main("fits", __doc__, measure))
