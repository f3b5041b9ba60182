"""A race on the GPU, and those with torch itself: look-ups of 4-bit embeddings beside float16 ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpuzip.nn import QuantizedEmbedding
from tools.roof.cases import floats, integers

_ROWS, _D = 30_522, 384
_STEP = 0.6  # between a value of N(0, 1) and its level of 4 bits, but for the few beyond the last level

Call = Callable[[], Any]


@dataclass(frozen=True)
class Race:
    """case: what both sides do. differ(ours, theirs): what is wrong with our answer, empty if nothing is."""

    case: str
    ours: Call
    theirs: Call
    differ: Callable[[Any, Any], str]


def torch_races(device: str = "cuda") -> Iterator[Race]:
    rows = floats(device, _ROWS, _D).half()
    table, dense = QuantizedEmbedding.from_pretrained(rows, bits=4), nn.Embedding.from_pretrained(rows)
    for count in (1, 32 * 128, 1024 * 128):
        ids = integers(device, _ROWS, count, dtype=torch.int64)
        case = f"embedding, {count} ids of {_ROWS} x {_D}, 4 bits beside float16"
        yield Race(case, lambda ids=ids: table(ids), lambda ids=ids: dense(ids), _far)  # type: ignore[misc]


def _far(ours: Tensor, theirs: Tensor) -> str:
    far = float(((ours.float() - theirs.float()).abs() > _STEP).float().mean())
    return "" if ours.shape == theirs.shape and far < 0.01 else f"{far:.2%} of the values are far"
