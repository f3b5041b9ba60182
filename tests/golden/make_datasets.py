"""Make the golden datasets of format 1, once; what exists is never written again.

    python -m tests.golden.make_datasets

datasets/NAME is a dataset, and datasets/NAME.json what every later version must read from it, worked out by
plain Python from the formulas below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

import gpuzip

FOLDER = Path(__file__).parent / "datasets"
D = 4


def row(n: int) -> list[float]:
    """Multiples of 1/8, which float16 holds exactly."""
    return [((7 * n + 3 * s + n * s) % 33 - 16) / 8 for s in range(D)]


def rows(numbers: list[int]) -> torch.Tensor:
    return torch.tensor([row(n) for n in numbers], dtype=torch.float32).view(-1, D)


def columns(numbers: list[int]) -> dict[str, Any]:
    years = pa.array([None if n % 4 == 0 else 2000 + n for n in numbers], pa.int16())
    return {"year": years, "text": [f"text {n}" for n in numbers]}


def named() -> tuple[list[str], list[int], list[int]]:
    """Strings as ids, columns, removed rows and an update. Ids, and numbers of their rows and columns."""
    codec = gpuzip.HalfQuantizer().fit(rows([*range(20)]))
    data = gpuzip.Dataset.create(FOLDER / "named", codec, ids="string")
    first, second = [*range(10)], [*range(10, 15)]
    data.append(rows(first), [f"ä{n}" for n in first], columns(first))
    data.append(rows(second), [f"ä{n}" for n in second], columns(second))
    data.remove(["ä3", "ä9"])
    data.update(["ä12", "ä0"], rows([30, 31]))
    left = [1, 2, 4, 5, 6, 7, 8, 10, 11, 13, 14]
    return [f"ä{n}" for n in [*left, 12, 0]], [*left, 30, 31], [*left, 12, 0]


def numbered() -> tuple[list[int], list[int], list[int]]:
    """Rows that number themselves: a shard with ids of its own, after compact, and one of consecutive ids."""
    data = gpuzip.Dataset.create(FOLDER / "numbered", gpuzip.HalfQuantizer().fit(rows([*range(20)])))
    data.append(rows([*range(6)]))
    data.remove([1, 5])
    data.compact(removed=0)
    data.append(rows([40, 41, 42]))
    data.remove([7])
    return [0, 2, 3, 4, 6, 8], [0, 2, 3, 4, 40, 42], []


MAKERS = {"named": named, "numbered": numbered}


def main() -> None:
    for name, make in MAKERS.items():
        if (FOLDER / name).exists():
            continue
        ids, numbers, texts = make()
        want = {"ids": ids, "rows": [row(n) for n in numbers], "text": [f"text {n}" for n in texts]}
        (FOLDER / f"{name}.json").write_text(json.dumps(want, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
