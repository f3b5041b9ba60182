"""Make the golden archives, once; what exists is never written again.

    python -m tests.archive.golden.make

Beside NAME.ezip, NAME.npy holds what it decodes to. `lossless` is the source itself, and rows of the others
are within an error of the source, which is checked here; `by_hand.py` decodes `transform` and `unit`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import gpuzip

FOLDER = Path(__file__).parent


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 16, generator=generator) * torch.logspace(0, -1, 16) + 0.2
    dictionary = gpuzip.train_dictionary(x)
    x = x[:100]
    settings: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {
        "transform": (x, {"max_row_error": 0.2}),
        "unit": (torch.nn.functional.normalize(x), {"min_cosine": 0.98}),
        "dictionary": (x, {"max_row_error": 0.2, "dictionary": dictionary}),
        "grid": (x, {"max_error": 0.01}),
        "lossless": (x.half(), {"lossless": True}),
    }
    for name, (rows, own) in settings.items():
        path = FOLDER / f"{name}.ezip"
        if path.exists():
            raise SystemExit(f"{path} exists. Golden files are never made again: give a new one a new name.")
        archive = gpuzip.TransformCoder(block_rows=40, **own).fit(rows).encode(rows)
        found = archive.decode()
        assert (found - rows).abs().max() <= {"grid": 0.01, "lossless": 0}.get(name, 0.3)
        archive.save(path, rows)
        np.save(FOLDER / f"{name}.npy", found.numpy())
    dictionary.save(FOLDER / "golden.gpuzip-dictionary")


if __name__ == "__main__":
    main()
