"""The functions that need one call: compress, pareto, quantize, save, load, open, info."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from gpuzip._core.bars import Bar
from gpuzip._core.checks import Metric, is_whole, whole
from gpuzip._core.planes import sizes_of
from gpuzip._core.progress import Progress
from gpuzip._core.quality import QualityMeter
from gpuzip._core.rows import Matrix, Rows
from gpuzip.choose import Asked, Table, meet, table_for, table_target
from gpuzip.choose.arguments import check_together, given_of
from gpuzip.choose.by_bytes import Importance, fit_by_importance, parse_bytes
from gpuzip.codecs import Codec, ProductQuantizer, codec_class
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import KIND, MOST_PARTS, MixedCodes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.search.packed import Packed
from gpuzip.storage import (
    ArchiveContents,
    Contents,
    FileInfo,
    Source,
    Target,
    check_target,
    read_file,
    read_info,
)
from gpuzip.storage.file import folder_of
from gpuzip.storage.folder import Folder, read_folder
from gpuzip.storage.info import advice_for
from gpuzip.storage.remote import Remote, remote
from gpuzip.storage.tensors import read_tensors

if TYPE_CHECKING:  # archives are imported where they are used: most programs need none
    from gpuzip.archive.archive import Archive
    from gpuzip.archive.dictionary import Dictionary

_JUDGED = 1000  # rows by which advice is given


@overload
def compress(
    x: Matrix,
    *,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    ratio: float | None = ...,
    min_cosine: float | None = ...,
    for_: Literal["storage"],
    progress: Progress = ...,
    return_table: Literal[False] = ...,
) -> Codes | Archive: ...


@overload
def compress(
    x: Matrix,
    *,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    ratio: float | None = ...,
    min_cosine: float | None = ...,
    for_: Literal["storage"],
    progress: Progress = ...,
    return_table: Literal[True],
) -> tuple[Codes | Archive, Table]: ...


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
    metric: Metric | None = ...,
    queries: Matrix | None = ...,
    rescore: bool = ...,
    for_: Literal["search"] | None = ...,
    progress: Progress = ...,
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
    metric: Metric | None = ...,
    queries: Matrix | None = ...,
    rescore: bool = ...,
    for_: Literal["search"] | None = ...,
    progress: Progress = ...,
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
    metric: Metric | None = None,
    queries: Matrix | None = None,
    rescore: bool = False,
    for_: str | None = None,
    return_table: bool = False,
    progress: Progress = None,
    importance: Importance | None = None,
    max_bits: int | None = None,
) -> Codes | Archive | MixedCodes | tuple[Codes | Archive, Table]:
    """Compress rows by product quantization, or by the codec that meets a size or a quality.

    Parameters
    ----------
    x : (N, D) float tensor, array or memory map
        Rows to compress.
    m : int, optional
        Number of sub-spaces. Default: the divisor of D nearest D // 16.
    nbits : int, default 4
        Bits per sub-space, 1 to 16. x must have at least 2**nbits rows.
    pad : bool, default False
        Allow an m that does not divide D.
    seed : int, default 0
        Seed of all random draws. The same seed gives the same bytes.
    max_bytes : int or str, optional
        Upper bound on the saved file, with its header and codec: bytes, or text such as "20MB".
        Never exceeded.
    bits_per_dim : float, optional
        Upper bound on the codes alone, in bits per value, up to 8; may be a fraction. With importance, what
        fills a row up to whole bytes is not counted.
        The codec may add up to 10 % (or a small fixed size).
    ratio : float, optional
        Least ratio of the bytes of x to the bytes of the file.
    min_cosine : float, optional
        Least mean cosine between rows and their decoded forms.
    min_recall : float, optional
        Least mean share of the k nearest rows that a search finds.
    k : int, default 10
        Number of neighbours that recall counts.
    metric : {"cosine", "ip", "l2"}, default "cosine"
        Metric of the search that recall is measured on.
    queries : (Q, D) float tensor, array or memory map, optional
        Queries like those to come, at least 50, to measure recall with: half of them choose the codec, the
        others judge it. Default: held-out rows are the queries, and recall for other queries may be lower.
    rescore : bool, default False
        Measure recall of a search with `rescore=x`, which reads x beside the codes.
    for_ : {"search", "storage"}, optional
        "search": choose, within a size, the codes of highest recall. "storage": the smallest file that
        keeps min_cosine, or the least error within a size, for rows that are seldom searched: most often an
        Archive. Default: codes, by their error where no recall is asked for.
    return_table : bool, default False
        Return (codes, table), where the table lists every codec that was tried.
    progress : bool or callable, optional
        True shows a bar. A function is called after every codec that was tried with how many were, and how
        many there are at most; without a target after every block with the rows encoded and all rows.
    importance : (N,) array of numbers, 0 or more, optional
        Weight per row, such as a word's frequency; needs max_bytes or bits_per_dim.
        Rows of higher importance get more bits, for the least weighted error within the budget for all rows.
    max_bits : int, default 8
        Most bits per value with importance; the least is 1/4.

    Returns
    -------
    Codes, Archive, MixedCodes or (Codes, Table)
        Archive with for_="storage", unless codes are smaller. MixedCodes with importance: groups of rows of
        equal bits, in Lloyd-Max codes. (Codes, Table) with return_table.

    Raises
    ------
    GpuzipError
        If the target cannot be reached (the message says what can be), or if arguments contradict each other.

    Notes
    -----
    A size (max_bytes, bits_per_dim or ratio) and qualities (min_cosine, min_recall) may be combined. A grid
    of codecs is tried: a fifth of the rows (at most 4,000) is held out, and codecs are fitted on the others
    (at most 131,072). Quality is measured on the held-out rows, which are also the queries for recall. The
    result is the smallest codec that is 95 % sure to reach the qualities, or the best one within the size. If
    only a size is given and recall does not matter, no rows are held out.

    `why` of the codes gives the reason for the choice. `held_out` of their codec has the measures; files keep
    them. A run takes up to a minute for 20,000 x 384 on two cores (bench/results/outcomes.csv).

    Source of budgets by importance: smallfry, whose memory budget is by word frequency.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.compress(x, m=8, nbits=4)
    >>> codes.shape, codes.codec.code_size
    ((256, 32), 4)
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
            "queries": queries,
            "rescore": rescore,
            "for_": for_,
            "return_table": return_table,
            "importance": importance,
            "max_bits": max_bits,
        }
    )
    check_together(who, given, for_)
    if isinstance(m, str | os.PathLike):
        raise GpuzipError(
            f"{who}: m must be a whole number of at least 1; got {m!r}. To write a file, use "
            "gpuzip.save(x, path)."
        )
    if not given - {"m", "nbits", "pad"}:
        codes = _by_product(x, m, 4 if nbits is None else nbits, pad, seed, progress)
        codes.why = _advice(who, codes.codec, x)
        return codes
    seed = whole(who, "seed", seed, 0)
    if importance is not None:
        return fit_by_importance(
            who, x, max_bytes, bits_per_dim, importance, 8 if max_bits is None else max_bits, seed
        )
    k, metric = 10 if k is None else k, "cosine" if metric is None else metric
    asked = Asked(max_bytes, bits_per_dim, ratio, min_cosine, min_recall, k, metric, rescore, for_)
    found, table = meet(who, x, asked, queries, return_table, seed, progress)
    return (found, table) if return_table else found


def pareto(
    x: Matrix,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    queries: Matrix | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Table:
    """Measure the size and quality of six codecs per family of `compress`'s grid, and of six archives.

    Parameters
    ----------
    x : (N, D) float tensor, array or memory map
        Rows to compress; at least 100.
    k : int, default 10
        Number of neighbours that recall counts.
    metric : {"cosine", "ip", "l2"}, default "cosine"
        Metric of the search that recall is measured on.
    queries : (Q, D) float tensor, array or memory map, optional
        Queries to measure recall with, as in `compress`.
    seed : int, default 0
        Seed of all random draws.
    progress : bool or callable, optional
        As in `compress`.

    Returns
    -------
    Table
        One entry per codec, sorted by bytes: cosine, recall@k with and without rescoring, and whether it is
        on the front (no smaller codec has as much recall). print() shows the table; `to_arrow` returns a
        pyarrow.Table.

    Notes
    -----
    Measures as `compress` does. A run takes some minutes for 40,000 x 384 on two cores.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(20_000, 384)
    >>> print(gpuzip.pareto(x))  # doctest: +SKIP
    """
    who = "pareto"
    rows = Rows(who, x)
    return table_for(who, rows, table_target(who, k, metric), whole(who, "seed", seed, 0), queries, progress)


def _by_product(
    x: Matrix, m: int | None, nbits: int, pad: bool, seed: int, progress: Progress = None
) -> Codes:
    codec = ProductQuantizer(m=m, nbits=nbits, pad=pad)
    shown = progress if isinstance(progress, bool | Bar) else None  # a function is told the rows alone
    return codec.fit_quietly(x, seed=seed, progress=shown).encode(x, progress=progress)


def _advice(who: str, codec: Codec, x: Matrix) -> str | None:
    """What would lose less, where some of the rows lose much."""
    sample, meter = Rows(who, x).sample(_JUDGED, 0).float(), QualityMeter()
    meter.add(sample, codec.decode_block(codec.encode_block(sample)))
    quality = meter.result()
    return None if quality is None else advice_for(quality, codec.d)


def quantize(x: Matrix, m: int | None = None, nbits: int = 4, *, pad: bool = False, seed: int = 0) -> Tensor:
    """Compress x and decode it again: a round trip.

    Parameters
    ----------
    x : (N, D) float tensor, array or memory map
        Rows to compress.
    m, nbits, pad, seed : optional
        As in `compress`.

    Returns
    -------
    (N, D) tensor
        The decoded rows, on the device and in the dtype of x.

    See Also
    --------
    gpuzip.quantize_embeddings : Make sentence-transformers' byte formats.
    gpuzip.nn.quantize_embeddings_ : Compress the embedding tables of a model in place.

    Notes
    -----
    Source: embzip's function of this name.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.quantize(x, m=8).shape
    torch.Size([256, 32])
    """
    return _by_product(x, m, nbits, pad, seed).decode()


def save(
    x: Matrix,
    path: Target,
    m: int | None = None,
    nbits: int = 4,
    *,
    pad: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> FileInfo:
    """Compress x into one file, which stores the measured quality too.

    Parameters
    ----------
    x : (N, D) float tensor, array or memory map
        Rows to compress.
    path : str, path-like or binary file
        File to write. Parent folders are made. Or a file that is open for writing, such as io.BytesIO(). Or
        a URL of fsspec (extra `remote`): the file is uploaded when it is complete, under another name which
        is then moved, or in object stores to its own; an interrupted upload leaves the older one.
    m, nbits, pad, seed : optional
        As in `compress`.
    progress : bool or callable, optional
        True shows a bar. A function is called after every block with the rows done and all rows: first those
        encoded, then those measured.

    Returns
    -------
    FileInfo
        The header of the file. print() shows sizes, ratio and cosine.

    Notes
    -----
    An existing file is replaced as a whole, or kept on any error.

    Examples
    --------
    >>> import gpuzip, pathlib, tempfile, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     info = gpuzip.save(x, pathlib.Path(folder) / "x.ezip", m=8)
    >>> info.n, info.d
    (256, 32)
    """
    check_target(path)  # before the training, which may take long
    return _by_product(x, m, nbits, pad, seed, progress).save(path, x, progress=progress)


def load(
    path: Source,
    device: torch.device | str = "cpu",
    *,
    min_cosine: float | None = None,
    max_bytes: int | str | None = None,
    dictionary: Dictionary | str | os.PathLike[str] | None = None,
) -> Tensor:
    """Decode all rows of a compressed file. Every checksum is verified.

    Parameters
    ----------
    path : str, path-like, binary file or bytes
        File that `save` or `Codes.save` wrote, its URL, a file that is open for reading, or its bytes; or
        folder that `MixedCodes.save` wrote.
    device : torch.device or str, default "cpu"
        Device to decode on.
    min_cosine : float, optional
        Least mean cosine between rows and their source, as in `open`.
    max_bytes : int or str, optional
        Most bytes that the decoded rows may take: bytes, or text such as "2GB". Default: the memory of this
        computer.
    dictionary : Dictionary, str or path-like, optional
        As in `open`.

    Returns
    -------
    (N, D) tensor
        The decoded rows, in the dtype they were saved from.

    Raises
    ------
    GpuzipError
        If the decoded rows take more than max_bytes. Raised before memory is asked for.
    FormatError
        If the file is not a gpuzip file, is damaged, or is newer than this version.
    QualityError
        If the file is worse than min_cosine, or its quality was not measured.

    Examples
    --------
    >>> import gpuzip, pathlib, tempfile, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     info = gpuzip.save(x, pathlib.Path(folder) / "x.ezip", m=8)
    ...     y = gpuzip.load(info.path)
    >>> y.shape
    torch.Size([256, 32])
    """
    most = None if max_bytes is None else parse_bytes("load", "max_bytes", max_bytes)
    far = isinstance(remote("load", path), Remote)  # whose codes are verified when they are fetched
    codes = open(path, verify=not far, min_cosine=min_cosine, dictionary=dictionary)
    _check_size(codes, most)
    return codes.to(device).decode()


def open(
    path: Source,
    *,
    verify: bool = False,
    min_cosine: float | None = None,
    dictionary: Dictionary | str | os.PathLike[str] | None = None,
) -> Codes | Any:  # Any stands for MixedCodes and Archive: each caller would have to tell them apart
    """Open the codes of a file or folder by memory map: only rows that are used are read.

    The checksum of a block of rows is verified the first time that one of them is read. Of a URL of fsspec
    (extra `remote`) header and codec are fetched, and each block when one of its rows is read.

    Parameters
    ----------
    path : str, path-like, binary file or bytes
        File that `save` or `Codes.save` wrote, its URL, a file that is open for reading, or its bytes; or
        folder that `MixedCodes.save` wrote.
    verify : bool, default False
        Verify all codes now, which reads them. Header and codec are always verified.
    min_cosine : float, optional
        Least mean cosine between decoded and source rows, as stored in the file, or in each file of a folder.
    dictionary : Dictionary, str or path-like, optional
        The dictionary of an archive, its file or a folder of them, unless it came with gpuzip.

    Returns
    -------
    Codes, MixedCodes or Archive
        The codes, mapped from the file, or from the files of a folder.

    Raises
    ------
    FormatError
        If the file is not a gpuzip file, is damaged, or is newer than this version. Methods of the codes
        raise it too, for rows in a block that is damaged; other rows can still be read.
    QualityError
        If the file is worse than min_cosine, or was saved without its rows. Its codes are not read.

    Notes
    -----
    `Codes.data` is the mapped bytes, which are not verified when they are read there. Codes of files of
    format 1, whose checksum is one for all codes, are verified with verify=True alone.

    A search of a remote file fetches all codes, once; RaBitQ's candidates="plane" the planes that it scans.

    See Also
    --------
    open_mixed : Open the folders of MixedCodes alone.

    Examples
    --------
    >>> import gpuzip, pathlib, tempfile, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     info = gpuzip.save(x, pathlib.Path(folder) / "x.ezip", m=8)
    ...     shape = gpuzip.open(info.path).shape
    >>> shape
    (256, 32)
    """
    folder = folder_of(path)
    if folder is not None:
        return read_folder(folder, KIND, partial(_mixed, min_cosine=min_cosine), verify=verify)
    return _open(path, verify=verify, min_cosine=min_cosine, dictionary=dictionary)


def load_codec(path: Source) -> Codec:
    """Read the fitted codec of a file, without its rows.

    Parameters
    ----------
    path : str, path-like, binary file or bytes
        File that `codec.save`, `save` or `Codes.save` wrote, its URL, a file that is open for reading, or its
        bytes.

    Returns
    -------
    Codec
        The codec, fitted.

    Raises
    ------
    FormatError
        If the file is not a gpuzip file, is damaged, or is newer than this version.

    Examples
    --------
    >>> import gpuzip, io, torch
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> file = io.BytesIO()
    >>> _ = gpuzip.ScalarQuantizer().fit(x).save(file)
    >>> gpuzip.load_codec(file.getvalue()).encode(x).shape
    (64, 8)
    """
    codes = _open(path, verify=False)
    if not isinstance(codes, Codes):
        raise GpuzipError(
            "load_codec: path must be a file of codes; it holds an archive. Use gpuzip.open(path).codec."
        )
    return codes.codec


def open_mixed(path: str | os.PathLike[str], *, verify: bool = False) -> MixedCodes:
    """Open the codes of a folder by memory map.

    Parameters
    ----------
    path : str or path-like
        Folder that `MixedCodes.save` wrote.
    verify : bool, default False
        Verify all files now, which reads them. Otherwise codes are verified where they are read, as by
        `open`. Headers, codecs and the list of files are always verified.

    Returns
    -------
    MixedCodes
        The codes, mapped from the files of the folder.

    Raises
    ------
    FormatError
        If a file of the folder is missing, is damaged, or belongs to another folder.

    Examples
    --------
    >>> import gpuzip, pathlib, tempfile, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.compress(x, bits_per_dim=2, importance=torch.arange(256.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = codes.save(pathlib.Path(folder) / "x")
    ...     shape = gpuzip.open_mixed(pathlib.Path(folder) / "x").shape
    >>> shape
    (256, 32)
    """
    return read_folder(path, KIND, _mixed, verify=verify)


def _mixed(folder: Folder, min_cosine: float | None = None) -> MixedCodes:
    count: Any = folder.about.get("parts")
    if not is_whole(count) or not 1 <= count <= MOST_PARTS:
        raise FormatError(
            f"{folder.path}: its manifest must have 1 to {MOST_PARTS} parts; got {folder.about!r:.200}. "
            "The folder is damaged, or gpuzip.MixedCodes did not write it."
        )
    files = [folder.file(f"part-{i}.ezip") for i in range(count)]
    parts: list[Any] = [_open(file, verify=False, min_cosine=min_cosine) for file in files]
    group = None
    if "group.safetensors" in folder.members:
        tensors, _ = read_tensors(folder.verified("group.safetensors"))
        if "group" not in tensors:
            raise FormatError(
                f"{folder.file('group.safetensors')}: must hold group. gpuzip did not write it."
            )
        group = tensors["group"]
    try:
        return MixedCodes(parts, group)
    except GpuzipError as error:
        raise FormatError(f"{folder.path}: its parts must belong together: {error}") from error


def info(path: Source) -> FileInfo:
    """Read the header of a file: its sizes, its codec and its quality.

    Parameters
    ----------
    path : str, path-like, binary file or bytes
        File that `save` or `Codes.save` wrote, its URL, a file that is open for reading, or its bytes.

    Returns
    -------
    FileInfo
        The header. Codes are not read.

    Examples
    --------
    >>> import gpuzip, pathlib, tempfile, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = gpuzip.save(x, pathlib.Path(folder) / "x.ezip", m=8).path
    ...     info = gpuzip.info(path)
    >>> info.codec, info.dtype
    ('pq', torch.float32)
    """
    return read_info(path)


def _check_size(codes: Codes | MixedCodes | Archive, most: int | None) -> None:
    needed = codes.shape[0] * codes.shape[1] * codes.dtype.itemsize
    if most is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if most is not None and needed > most:
        raise GpuzipError(
            f"load: the decoded rows must take at most {most:,} bytes; they take {needed:,}. Use "
            "gpuzip.open, which decodes the rows that are asked for, or pass a higher max_bytes."
        )


def _open(
    path: Source,
    *,
    verify: bool,
    min_cosine: float | None = None,
    dictionary: Dictionary | str | os.PathLike[str] | None = None,
) -> Codes | Archive:
    contents = read_file(path, verify=verify, min_cosine=min_cosine)
    if not isinstance(contents, ArchiveContents):
        return _codes(contents)
    from gpuzip.archive.file import opened

    return opened(contents, dictionary)


def _codes(contents: Contents) -> Codes:
    try:
        codec = codec_class(contents.info.codec).restore(contents.info.config, contents.state)
    except FormatError as error:
        raise type(error)(f"{contents.info.path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(
            f"{contents.info.path}: settings and tensors must make a codec; got {error!r:.200}. Restore the "
            "file, or make it again."
        ) from error
    sizes = sizes_of(contents.codes)
    if codec.d != contents.info.d or sizes != codec.plane_sizes:
        made, needed = ("+".join(map(str, some)) for some in (sizes, codec.plane_sizes))
        raise FormatError(
            f"{contents.info.path}: codes must have {needed} bytes per row of {codec.d} columns for its "
            f"codec; got {made} of {contents.info.d}."
        )
    codec = codec.stamped(codec.held_out, contents.info.quality)
    codes = Codes(codec, contents.codes, contents.info.dtype)
    codes.packed = Packed(contents.codes, codec.norms, contents.unverified)
    return codes
