"""Error at 1, 2, 3, 4 and 8 bits per value: Lloyd-Max codes beside those of others.

    python -m bench.bitrates [--rows 2000]

On a model's token table and on word vectors. Writes bench/results/bitrates.csv, unless on fewer rows; the
exit status is 1 when any peer has a smaller error than the best of ours that takes no more bytes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from bench.matrices import token_matrix, word_vectors
from bench.methods import Stored, methods
from bench.record import finish
from bench.weight_peers import version_of
from gpuzip._core.quality import QualityMeter

Row = dict[str, Any]

#: Bytes are equal up to this share: a codebook of floats beside two numbers.
SAME_BYTES = 1e-3

_BLOCK = 4096


def measured(table: str, x: Tensor) -> Iterator[Row]:
    for method in methods(x.shape[1]):
        stored = method.store(x)
        about = {"table": table, "rows": len(x), "d": x.shape[1], "bits": method.bits}
        sizes = {"nbytes": stored.nbytes, "file_bytes": stored.file_bytes}
        yield (
            about
            | {"side": method.side, "method": method.name}
            | sizes
            | _error(x, stored)
            | {
                "bits_a_value": 8 * stored.nbytes / x.numel(),
                "fit_seconds": stored.fit_seconds,
                "version": version_of(method.side),
                "note": stored.note,
            }
        )


def _error(x: Tensor, stored: Stored) -> Row:
    meter = QualityMeter()
    for part, decoded in zip(x.split(_BLOCK), stored.decoded.split(_BLOCK), strict=True):
        meter.add(part, decoded)
    quality = meter.result()
    assert quality is not None
    return {"mse": quality.mse, "row_cosine": quality.row_cosine}


def judged(rows: list[Row]) -> list[Row]:
    """Each row and, of a peer, our best that takes no more bytes, and whether that is as good."""
    return [row | _rival(row, rows) for row in rows]


def _rival(row: Row, rows: list[Row]) -> Row:
    if row["side"] == "gpuzip":
        return {"rival": None, "rival_mse": None, "ok": None}
    most = row["nbytes"] * (1 + SAME_BYTES)
    fitting = [
        one
        for one in rows
        if one["side"] == "gpuzip" and one["table"] == row["table"] and one["nbytes"] <= most
    ]
    best = min(fitting, key=lambda one: one["mse"], default=None)
    if best is None:
        return {"rival": None, "rival_mse": None, "ok": False}
    rival = f"{best['method']}, {best['bits_a_value']:.2f} bits"
    return {"rival": rival, "rival_mse": best["mse"], "ok": best["mse"] <= row["mse"]}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.bitrates", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, help="the first of each table alone; writes nothing")
    few = parser.parse_args().rows
    logging.disable(logging.WARNING)  # of kernels that torchao and bitsandbytes have for GPUs
    tables = {"tokens of all-MiniLM-L6-v2": token_matrix(), "word vectors": word_vectors()}
    rows = judged([row for name, x in tables.items() for row in measured(name, x[:few])])
    heads = "table | bits |  | method | bytes | bits per value | mse | row cosine | fit | "
    cells = (
        "{table} | {bits} | {side} | {method} | {nbytes:,} | {bits_a_value:.3f} | {mse:.4g} | "
        "{row_cosine:.5f} | {fit_seconds:s} | {ok:ok}"
    )
    status = finish("bitrates", rows, heads, cells, title="Bits per value", whole=few is None)
    for row in (row for row in rows if row["ok"] is False):
        case = f"{row['table']}: {row['side']}, {row['method']}, {row['bits_a_value']:.3f} bits"
        print(f"{case}: mse {row['mse']:.4g}, our best of as few bytes {row['rival_mse']} ({row['rival']})")
    return status


if __name__ == "__main__":
    sys.exit(main())
