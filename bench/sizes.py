"""Bytes of the sample as lists, as floats and under every codec, with all that comes beside the codes.

    python -m bench.sizes

Writes bench/results/sizes.csv. Bytes are counted, not timed: any machine has the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from bench.record import finish
from examples.pictures import encoded
from examples.sample import load_sample
from gpuzip.sizes import size_table

_COUNTS = ("values", "codec", "overhead", "nbytes")
_RATIOS = ("float32_ratio", "float64_ratio")


def measured(x: Tensor) -> Iterator[dict[str, Any]]:
    """A row for each form of the rows."""
    for row in size_table(x, encoded(x)):
        numbers = {name: getattr(row, name) for name in (*_COUNTS, *_RATIOS)}
        yield {"rows": len(x), "d": x.shape[1], "name": row.name} | numbers


def main() -> int:
    cells = "{name} | {values:,} | {codec:,} | {overhead:,} | {nbytes:,}"
    rows = list(measured(load_sample().embeddings))
    return finish("sizes", rows, " | values | codec | overhead | nbytes", cells, title="Bytes")


if __name__ == "__main__":
    sys.exit(main())
