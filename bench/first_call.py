"""The first call in a new process that imported gpuzip and nothing that it imports later.

    python -m bench.first_call search FILE METRIC
    python -m bench.first_call tour

Prints the CPU seconds and the seconds: of the first search of a file's codes, for one query, or of a tour of
all codecs. With GPUZIP_LOOPS=1 in the environment as users have it, else as with GPUZIP_LOOPS=wait.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import torch

import gpuzip
from bench.data import made, sample

#: Rows of the tour.
ROWS = 2000

_CODECS = (
    *(
        "PQ48x8",
        "PQ96x4",
        "RQ8x8",
        "PRQ2x4x8",
        "SQ8",
        "SQ4",
        "SQfp16",
        "Binary",
        "LloydMax4",
        "MixedLloydMax4",
    ),
    *("RaBitQ", "RaBitQ4"),
)


def search(file: str, metric: Any) -> None:
    gpuzip.open(file).search(sample().queries[:1], 10, metric)


def tour() -> None:
    """Fit, encode, decode and search with every codec."""
    x, queries = made(ROWS), sample().queries[:16]
    for spec in _CODECS:
        codes = gpuzip.from_spec(spec).fit(x).encode(x)
        codes.decode()
        for part in (queries[:1], queries):
            codes.search(part, 10)


if __name__ == "__main__":
    torch.set_num_threads(2)
    warnings.simplefilter("ignore", UserWarning)  # the rows are few for 256 centroids
    name, *arguments = sys.argv[1:]
    call: Any = {"search": search, "tour": tour}[name]
    sample(), made(ROWS)
    at = time.process_time(), time.perf_counter()
    call(*arguments)
    print(json.dumps([time.process_time() - at[0], time.perf_counter() - at[1]]))
