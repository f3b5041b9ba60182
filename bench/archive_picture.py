"""The picture of bits per value against cosine in docs/images, from bench/results/archive.csv and recall.csv.

python -m bench.archive_picture
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from bench.checkout import ROOT, Row, read

PICTURE = ROOT / "docs" / "images" / "archive.png"
#: A panel each; the first has the methods of recall.csv, too.
DATA = ("sentence embeddings", "word vectors", "SIFT-like integers")
_DOTS = 160  # per inch

#: Names in the legend, and the methods that each has.
GROUPS: dict[str, Callable[[str], bool]] = {
    "TransformCoder": lambda name: name == "TransformCoder, 8 states",
    "PQ": lambda name: re.fullmatch(r"ProductQuantizer\(m=\d+\)|PQ.*", name) is not None,
    "OPQ": lambda name: name.startswith("OPQ") or (name.startswith("Product") and "'opq'" in name),
    "RQ": lambda name: re.fullmatch(r"ResidualQuantizer\(\d+\)|RQ.*", name) is not None,
    "Lloyd-Max": lambda name: name.startswith(("LloydMaxQuantizer", "Lloyd-Max")),
    "scalar + zstd": lambda name: name.startswith("scalar"),
    "embzip": lambda name: name.startswith("embzip"),
    "float16 + zstd": lambda name: name.startswith("float16"),
}


def draw(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from gpuzip.plots import style

    figure, axes = pyplot.subplots(1, len(DATA), figsize=(10.4, 3.6), layout="constrained", sharey=True)
    for ax, name in zip(axes, DATA, strict=True):
        style.labelled(ax, "1 - cosine, better to the right", "bits per value" if name == DATA[0] else "")
        ax.set_title(name, fontsize=style.TEXT)
        some = [row for row in rows if row["part"] == "curve" and row["data"] == name]
        if name == DATA[0]:
            recall = [row for row in read("recall") if row["side"] == "gpuzip" and row["row_cosine"]]
            some += [_of_recall(row) for row in recall]
        _drawn(ax, some)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=style.TEXT - 1, frameon=False, loc="outside right")
    figure.savefig(PICTURE, dpi=_DOTS, metadata={"Software": None})
    pyplot.close(figure)


def _drawn(ax: Any, some: list[Row]) -> None:
    from gpuzip.plots import style

    colors = [*style.COLORS, style.BLUE]
    for (name, is_of), color, marker in zip(GROUPS.items(), colors, style.MARKERS, strict=False):
        points = sorted((_miss(row), float(row["bits"])) for row in some if is_of(row["method"]))
        if points:
            ax.plot(*zip(*points, strict=True), label=name, color=color, marker=marker, ms=3.5, lw=1)
    bound = sorted((_miss(row), float(row["bound_bits"])) for row in some if row["bound_bits"])
    if bound:
        ax.plot(*zip(*bound, strict=True), label="Gaussian bound", color="0.4", ls="--", lw=1)
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_yscale("log", base=2)
    ax.set_yticks([0.25, 0.5, 1, 2, 4, 8, 16], ["0.25", "0.5", "1", "2", "4", "8", "16"])


def _of_recall(row: Row) -> Row:
    """A row of results/recall.csv with the bits of its codes alone."""
    bits = 8 * float(row["row_bytes"]) / int(row["d"])
    return {"method": row["method"], "bits": str(bits), "cosine": row["row_cosine"], "bound_bits": ""}


def _miss(row: Row) -> float:
    return max(1 - float(row["cosine"]), 1e-8)


def main() -> int:
    draw(read("archive"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
