"""Error at 1, 2, 3, 4 and 8 bits per value: Lloyd-Max codes beside those of others.

    python -m bench.bitrates [--rows 2000]

On a model's token table and on word vectors. Writes bench/results/bitrates.csv, unless on fewer rows; the
exit status is 1 when any peer has a smaller error than the best of ours that takes no more bytes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from bench.matrices import token_matrix, word_vectors
from bench.methods import methods
from bench.record import main
from bench.weight_peers import version_of
from gpuzip._core.quality import QualityMeter

Row = dict[str, Any]

#: Bytes are equal up to this share: a codebook of floats beside two numbers.
SAME_BYTES = 1e-3

_BLOCK = 4096


def measured(table: str, x: Tensor) -> Iterator[Row]:
    for method in methods(x.shape[1]):
        stored = method.store(x)
        meter = QualityMeter()
        for part, decoded in zip(x.split(_BLOCK), stored.decoded.split(_BLOCK), strict=True):
            meter.add(part, decoded)
        quality = meter.result()
        assert quality is not None
        yield (
            {"table": table, "rows": len(x), "d": x.shape[1], "bits": method.bits}
            | {"side": method.side, "method": method.name, "version": version_of(method.side)}
            | {name: value for name, value in vars(stored).items() if name != "decoded"}
            | {"mse": quality.mse, "row_cosine": quality.row_cosine}
            | {"bits_a_value": 8 * stored.nbytes / x.numel()}
        )


def judged(rows: list[Row]) -> list[Row]:
    """Each row and, of a peer, our best that takes no more bytes, and whether that is as good."""
    return [row | _rival(row, rows) for row in rows]


def _rival(row: Row, rows: list[Row]) -> Row:
    if row["side"] == "gpuzip":
        return {"rival": None, "rival_mse": None, "ok": None}
    most, ours = row["nbytes"] * (1 + SAME_BYTES), ("gpuzip", row["table"])
    fitting = [one for one in rows if (one["side"], one["table"]) == ours and one["nbytes"] <= most]
    best = min(fitting, key=lambda one: one["mse"], default=None)
    if best is None:
        return {"rival": None, "rival_mse": None, "ok": False}
    rival = f"{best['method']}, {best['bits_a_value']:.2f} bits"
    return {"rival": rival, "rival_mse": best["mse"], "ok": best["mse"] <= row["mse"]}


def measure(few: int | None) -> list[Row]:
    logging.disable(logging.WARNING)  # of kernels that torchao and bitsandbytes have for GPUs
    tables = {"tokens of all-MiniLM-L6-v2": token_matrix(), "word vectors": word_vectors()}
    return judged([row for name, x in tables.items() for row in measured(name, x[:few])])


if __name__ == "__main__":
    sys.exit(main("bitrates", __doc__, measure))
