"""The one-call functions: compress, pareto, quantize, save, load, open, info."""

from __future__ import annotations

import os
from typing import Any, Literal, overload

import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.planes import sizes_of
from gpuzip._core.rows import Matrix, Rows
from gpuzip.choose import FEWEST, Asked, Table, compress_for, table_for, table_target, target_of
from gpuzip.choose.arguments import check_together, given_of
from gpuzip.choose.by_bytes import Importance, fit_alike, fit_by_importance
from gpuzip.codecs import ProductQuantizer, codec_class
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import KIND, MixedCodes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage import FileInfo, check_target, read_codes, read_info
from gpuzip.storage.folder import Folder, read_folder
from gpuzip.storage.tensors import read_tensors


@overload
def compress(
    x: Matrix,
    m: int | None = ...,
    nbits: int | None = ...,
    *,
    pad: bool = ...,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    ratio: float | None = ...,
    min_cosine: float | None = ...,
    min_recall: float | None = ...,
    k: int | None = ...,
    metric: str | None = ...,
    rescore: bool = ...,
    for_: str | None = ...,
    return_table: Literal[False] = ...,
    importance: None = ...,
) -> Codes: ...


@overload
def compress(
    x: Matrix,
    *,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    ratio: float | None = ...,
    min_cosine: float | None = ...,
    min_recall: float | None = ...,
    k: int | None = ...,
    metric: str | None = ...,
    rescore: bool = ...,
    for_: str | None = ...,
    return_table: Literal[True],
) -> tuple[Codes, Table]: ...


@overload
def compress(
    x: Matrix,
    *,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    importance: Importance,
    max_bits: int | None = ...,
) -> MixedCodes: ...


def compress(
    x: Matrix,
    m: int | None = None,
    nbits: int | None = None,
    *,
    pad: bool = False,
    seed: int = 0,
    max_bytes: int | str | None = None,
    bits_per_dim: float | None = None,
    ratio: float | None = None,
    min_cosine: float | None = None,
    min_recall: float | None = None,
    k: int | None = None,
    metric: str | None = None,
    rescore: bool = False,
    for_: str | None = None,
    return_table: bool = False,
    importance: Importance | None = None,
    max_bits: int | None = None,
) -> Codes | MixedCodes | tuple[Codes, Table]:
    """Train a quantizer on x and encode x with it: by product quantization, or whichever reaches an outcome.

    x: (N, D) float tensor, array or memory map. m: sub-quantizers, by default the divisor of D
    nearest D // 16. nbits: bits for each, 1 to 16, by default 4; there must be 2**nbits rows. pad: allow m
    that does not divide D. The same seed gives the same bytes.

    An outcome instead, limits of size and floors of quality, alone or together:
    max_bytes: of the saved file, with its header and codec, a number or text such as "20MB"; never exceeded.
    ratio: of the bytes of x to those of the file. bits_per_dim: of the codes alone, up to 8, also a fraction;
    their codec then takes a tenth of that or little.
    min_cosine: of rows and their decoded forms, on average. min_recall: share of the k nearest rows, by the
    metric, that a search finds, on average; rescore: of one with `rescore=x`, which reads x beside the codes.
    for_: "search", so that of codes within a size those of the best recall are taken, or "storage", of the
    least error, which is the default where no recall is asked for.
    A grid of codecs is tried: a fifth of the rows (4,000 at most) is held out, the others (131,072 at most)
    train each codec, and what it does to those that it has not seen is measured, recall with them as queries.
    The cheapest is taken that is 95 % sure to reach the floors, or the best within the size. With a size
    alone no other rows matter, and none is held out.
    `why` of the codes says what was chosen; its codec's `held_out` has the measures, and files keep them.
    return_table: return (codes, table), with all that was tried.
    Up to a minute for 20,000 x 384, on two cores (bench/results/outcomes.csv).

    importance: (N,) numbers of 0 or more, such as frequencies, with max_bytes or bits_per_dim: rows of more
    importance have more bits, from 1/4 to max_bits, for the least error weighted by it, in groups of equal
    bits of Lloyd-Max codes; the budget holds for all. Source: smallfry's memory budget, by word frequency.
    Raises GpuzipError where a target can't be reached, and names what can; or comes with m, nbits or pad.
    """
    who = "compress"
    given = given_of(
        {
            "m": m,
            "nbits": nbits,
            "pad": pad,
            "max_bytes": max_bytes,
            "bits_per_dim": bits_per_dim,
            "ratio": ratio,
            "min_cosine": min_cosine,
            "min_recall": min_recall,
            "k": k,
            "metric": metric,
            "rescore": rescore,
            "for_": for_,
            "return_table": return_table,
            "importance": importance,
            "max_bits": max_bits,
        }
    )
    check_together(who, given)
    if not given - {"m", "nbits", "pad"}:
        return _by_product(x, m, 4 if nbits is None else nbits, pad, seed)
    seed = whole(who, "seed", seed, 0)
    if importance is not None:
        return fit_by_importance(who, x, max_bytes, bits_per_dim, importance, max_bits or 8, seed)
    k, metric = 10 if k is None else k, "cosine" if metric is None else metric
    asked = Asked(max_bytes, bits_per_dim, ratio, min_cosine, min_recall, k, metric, rescore, for_)
    codes, table = _for_outcome(who, x, asked, return_table, seed)
    return (codes, table) if return_table else codes


def _for_outcome(who: str, x: Matrix, asked: Asked, in_table: bool, seed: int) -> tuple[Codes, Table]:
    rows = Rows(who, x)
    target = target_of(who, rows, asked)
    if rows.n < FEWEST and not (target.has_floor or target.search or in_table):  # none can be held out
        return fit_alike(who, x, target.max_bytes, asked.bits_per_dim, seed), Table()
    return compress_for(who, x, rows, target, seed)


def pareto(x: Matrix, *, k: int = 10, metric: str = "cosine", seed: int = 0) -> Table:
    """What sizes cost what quality on x: six codecs of each family of the grid, measured as `compress` does.

    x: (N, D), 100 rows or more. Rows of the table come by their bytes, with cosine, recall@k with and
    without rescoring, and whether they are on the front: none has as much recall in fewer bytes. print()
    shows them, `to_arrow` gives a pyarrow.Table. Some minutes for 40,000 x 384 on two cores.
    """
    who = "pareto"
    rows = Rows(who, x)
    return table_for(who, rows, table_target(who, k, metric), whole(who, "seed", seed, 0))


def _by_product(x: Matrix, m: int | None, nbits: int, pad: bool, seed: int) -> Codes:
    codec = ProductQuantizer(m=m, nbits=nbits, pad=pad)
    return codec.fit(x, seed=seed, min_points_per_centroid=1).encode(x)  # it serves these rows alone


def quantize(x: Matrix, m: int | None = None, nbits: int = 4, *, pad: bool = False, seed: int = 0) -> Tensor:
    """What x looks like after compression: train, encode and decode in one call.

    (N, D) -> (N, D) on the same device and of the same dtype. Arguments as in `compress`.
    Source: embzip's function of this name.
    """
    return _by_product(x, m, nbits, pad, seed).decode()


def save(
    x: Matrix,
    path: str | os.PathLike[str],
    m: int | None = None,
    nbits: int = 4,
    *,
    pad: bool = False,
    seed: int = 0,
) -> FileInfo:
    """Compress x into one file, measure what that did to it, and stamp the measure in the file.

    Parent folders are made; an older file at `path` is replaced whole or, on any error, kept.
    print() of the result shows sizes, ratio and cosine. Arguments as in `compress`.
    """
    check_target(path)  # before a long training, not after it
    return _by_product(x, m, nbits, pad, seed).save(path, x)


def load(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", *, min_cosine: float | None = None
) -> Tensor:
    """The rows of a compressed file, (N, D) in the dtype they were saved from. Every checksum is verified.

    min_cosine: as in `open`.
    """
    return _open(path, verify=True, min_cosine=min_cosine).to(device).decode()


def open(path: str | os.PathLike[str], *, verify: bool = False, min_cosine: float | None = None) -> Codes:
    """The codes of a file, mapped: only rows that are touched are read.

    The header and the codec are checked; the codes only with verify=True, which reads them all.
    min_cosine: the least mean cosine of rows with their source that will do, as stamped in the file. A worse
    file, or one that was saved without its rows, raises QualityError before its codes are read.
    `open_mixed` reads the folders of MixedCodes.
    """
    return _open(path, verify=verify, min_cosine=min_cosine)


def open_mixed(path: str | os.PathLike[str], *, verify: bool = False) -> MixedCodes:
    """The codes of a folder that `MixedCodes.save` wrote, mapped. Checks as `open` does, and all is there."""
    return read_folder(path, KIND, _mixed, verify=verify)


def _mixed(folder: Folder) -> MixedCodes:
    count: Any = folder.about.get("parts")
    if not is_whole(count) or not 1 <= count <= 255:
        raise FormatError(f"{folder.path}: its manifest describes no codes: {folder.about!r:.200}.")
    parts = [_open(folder.file(f"part-{i}.ezip"), verify=False) for i in range(count)]
    group = None
    if "group.safetensors" in folder.members:
        group = read_tensors(folder.verified("group.safetensors"))[0].get("group")
    try:
        return MixedCodes(parts, group)
    except GpuzipError as error:
        raise FormatError(f"{folder.path}: its parts are of different folders: {error}") from error


def info(path: str | os.PathLike[str]) -> FileInfo:
    """What a file holds and how good it is, from its header alone."""
    return read_info(path)


def _open(path: str | os.PathLike[str], *, verify: bool, min_cosine: float | None = None) -> Codes:
    contents = read_codes(path, verify=verify, min_cosine=min_cosine)
    try:
        codec = codec_class(contents.info.codec).restore(contents.info.config, contents.state)
    except FormatError as error:
        raise type(error)(f"{contents.info.path}: {error}") from error
    sizes = sizes_of(contents.codes)
    if codec.d != contents.info.d or sizes != codec.plane_sizes:
        made, needed = ("+".join(map(str, some)) for some in (sizes, codec.plane_sizes))
        raise FormatError(
            f"{contents.info.path}: {made} bytes a row of {contents.info.d} columns; "
            f"its codec makes {needed} from {codec.d}."
        )
    codec = codec.stamped(codec.held_out, contents.info.quality)
    return Codes(codec, contents.codes, contents.info.dtype)
