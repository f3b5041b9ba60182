"""Bytes of the sample as lists, as floats and under every codec, with all that comes beside the codes.

    python -m bench.sizes

Writes bench/results/sizes.csv. Bytes are counted, not timed: any machine has the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from bench.record import main
from examples.pictures import encoded
from examples.sample import load_sample
from gpuzip.sizes import size_table

_NUMBERS = ("values", "codec", "overhead", "nbytes", "float32_ratio", "float64_ratio")


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    """A row for each form of the rows."""
    x = load_sample().embeddings[:few]
    for row in size_table(x, encoded(x)):
        numbers = {name: getattr(row, name) for name in _NUMBERS}
        yield {"rows": len(x), "d": x.shape[1], "name": row.name} | numbers


if __name__ == "__main__":
    sys.exit(main("sizes", __doc__, measure))
