"""Pictures and sizes of the sample under every codec: `python -m examples.pictures [folder]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot
from torch import Tensor

import gpuzip
from examples.sample import load_sample
from gpuzip import BinaryQuantizer, Codes, HalfQuantizer, ProductQuantizer, ScalarQuantizer, plots
from gpuzip.plots import CodecRecall
from gpuzip.sizes import size_table

OUTPUT = Path("build/pictures")
K = 10
DOTS = 300  # per inch


def main(folder: Path = OUTPUT) -> None:
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    sample = load_sample()
    x, queries = sample.embeddings, sample.queries
    codes = encoded(x)

    picture(folder / "vector.png", plots.vector(x[0]))
    picture(folder / "histogram.png", plots.histogram(x))
    float_against_int8(folder / "float_against_int8.png", x)
    picture(folder / "bit_against_byte.png", bit_against_byte(x))
    picture(folder / "recall_against_bytes.png", plots.recall_against_bytes(measured(x, queries, codes), k=K))
    of_codecs(folder, x, queries, codes)
    print(sizes(x, codes))


def encoded(x: Tensor) -> dict[str, Codes]:
    codecs: dict[str, gpuzip.codecs.Codec] = {
        "float16": HalfQuantizer().fit(x),
        "scalar, 8 bits": ScalarQuantizer(8).fit(x),
        "scalar, 4 bits": ScalarQuantizer(4).fit(x),
        "binary": BinaryQuantizer().fit(x),
    }
    for m in (32, 48, 96, 192):
        codecs[f"PQ m={m}"] = ProductQuantizer(m, nbits=4).fit(x)
    return {name: codec.encode(x) for name, codec in codecs.items()}


def measured(x: Tensor, queries: Tensor, codes: dict[str, Codes]) -> list[CodecRecall]:
    """Recall of the true cosine neighbours. Bytes are those of a row's codes, without the codec's state."""
    unit = torch.nn.functional.normalize
    truth = (unit(queries) @ unit(x).T).topk(K).indices
    rows = [CodecRecall("float32", "float", 4 * x.shape[1], 1.0)]
    families = {HalfQuantizer: "float", ScalarQuantizer: "scalar", BinaryQuantizer: "binary"}
    for name, some in codes.items():
        _, ids = some.search(queries, K)
        family = families.get(type(some.codec), "product")
        rows.append(CodecRecall(name, family, some.codec.code_size, gpuzip.recall(ids, truth)))
    bits = codes["binary"]
    _, ids = bits.search(queries, K, rescore=x)
    ram = bits.codec.code_size  # the floats that rescore can lie on a disk
    name = f"binary, rescored x4\n({ram} B in RAM)"
    rows.append(CodecRecall(name, "rescored", ram, gpuzip.recall(ids, truth)))
    return rows


def of_codecs(folder: Path, x: Tensor, queries: Tensor, codes: dict[str, Codes]) -> None:
    """What codecs do to sizes, dimensions, ranks, codewords and bits."""
    tried = pareto(x, queries, codes)
    picture(folder / "pareto.png", plots.pareto(tried))
    picture(folder / "cosine.png", plots.pareto(tried, quality="row_cosine", bound=x))
    some = {name: codes[name] for name in ("binary", "PQ m=96", "scalar, 8 bits")}
    picture(folder / "error_by_dimension.png", plots.error_by_dimension(x, some))
    picture(folder / "use_of_codewords.png", plots.use_of_codewords(codes["PQ m=96"]))
    before, after = (codes[name].search(queries, K).ids for name in ("float16", "binary"))
    picture(folder / "change_of_rank.png", plots.change_of_rank(before, after))
    picture(folder / "spectrum.png", plots.spectrum(x, gpuzip.from_spec("PCA,MixedLloydMax1").fit(x)))


def pareto(x: Tensor, queries: Tensor, codes: dict[str, Codes]) -> list[dict[str, Any]]:
    """Size, recall and cosine of the codes of all rows."""
    truth = codes["float16"].search(queries, K).ids
    return [
        {
            "spec": name,
            "code_size": some.codec.code_size,
            "recall": gpuzip.recall(some.search(queries, K).ids, truth),
            "row_cosine": getattr(some.quality(x), "row_cosine", 1.0),
        }
        for name, some in codes.items()
    ]


def float_against_int8(path: Path, x: Tensor) -> None:
    """One vector. With one range for all dimensions its points are a line, with a range for each a cloud."""
    axes = pyplot.subplots(1, 2, figsize=(7, 2.6), layout="constrained", sharey=True)[1]
    for ax, per, title in zip(axes, ("tensor", "dim"), ("One range", "A range per dimension"), strict=True):
        plots.float_against_int8(x[0], ScalarQuantizer(8, per=per).fit(x).encode(x[:1]), ax)
        ax.set_title(title, fontsize=8)
    axes[1].set_ylabel("")
    picture(path, axes[0])


def bit_against_byte(x: Tensor) -> Any:
    """The notebook's bit, above the mean of all values, against its byte, of one range for all."""
    bits = BinaryQuantizer(threshold="mean").fit(x).encode(x[:1])
    return plots.bit_against_byte(bits, ScalarQuantizer(8, per="tensor").fit(x).encode(x[:1]))


def picture(path: Path, ax: Any) -> None:
    ax.figure.savefig(path, dpi=DOTS)
    pyplot.close(ax.figure)
    print(path)


def sizes(x: Tensor, codes: dict[str, Codes]) -> str:
    table = [["", "values or codes", "codec", "overhead", "all", "float32 / all", "float64 / all"]]
    for row in size_table(x, codes):
        numbers = [f"{number:,}" for number in (row.values, row.codec, row.overhead, row.nbytes)]
        table.append([row.name, *numbers, f"{row.float32_ratio:.2f}", f"{row.float64_ratio:.2f}"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"\nBytes of {len(x):,} x {x.shape[1]} values"]
    for name, *cells in table:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *right]))
    return "\n".join(lines)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
