"""The picture of recall against bytes in docs/images, from bench/results/recall.csv.

    python -m bench.pareto [--check]

Each point is a codec at one size. The best codec of each size is joined by a line, one for gpuzip and one for
FAISS. With --check nothing is drawn, and the exit status is 1 when the picture is of other results.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from typing import Any

from PIL import Image

from bench.checkout import ROOT, Row, read
from bench.recall.targets import best

PICTURE = ROOT / "docs" / "images" / "recall_per_byte.png"

_COLORS = {"gpuzip": "#0072B2", "FAISS": "#D55E00"}  # of the first two families of `gpuzip.plots`
_DOTS = 160  # per inch


def draw(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from gpuzip import plots

    sizes = list(dict.fromkeys(row["size"] for row in rows))
    ax = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")[1]
    leaders = {side: [best(rows, side, size) for size in sizes] for side in _COLORS}
    points = [
        plots.CodecRecall(" ", f"{side}, best codec of each size", float(row["size"]), float(row["recall"]))
        for side, some in leaders.items()
        for row in some
        if row is not None
    ]
    plots.recall_against_bytes(points, ax)
    look: dict[str, Any] = {"s": 9, "alpha": 0.45, "linewidths": 0}
    for side, color in _COLORS.items():
        some = [row for row in rows if row["side"] == side and row["recall"]]
        bytes_, recalls = ([float(row[name]) for row in some] for name in ("row_bytes", "recall"))
        ax.scatter(bytes_, recalls, color=color, label=f"{side}, others", **look)
    ax.set_xticks([float(size) for size in sizes], sizes)
    ax.set_ylim(min(float(row["recall"]) for row in rows if row["recall"]) - 0.04, 1.01)
    ax.set_yticks([tick / 10 for tick in range(6, 11)])
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(PICTURE, dpi=_DOTS, metadata={"Description": digest(rows), "Software": None})
    pyplot.close(ax.figure)


def digest(rows: list[Row]) -> str:
    """The digest of the rows that are drawn."""
    drawn = [[row[name] for name in ("side", "method", "size", "row_bytes", "recall")] for row in rows]
    return hashlib.blake2b(repr(drawn).encode(), digest_size=16).hexdigest()


def is_of(rows: list[Row]) -> bool:
    """Whether the picture that is there was drawn from these rows."""
    if not PICTURE.is_file():
        return False
    with Image.open(PICTURE) as image:
        return bool(image.info.get("Description") == digest(rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pareto", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="draw nothing, fail when it is out of date")
    rows = read("recall")
    if not parser.parse_args().check:
        draw(rows)
    return int(not is_of(rows))


if __name__ == "__main__":
    sys.exit(main())
