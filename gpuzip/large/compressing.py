"""`compress_file`: a source of any size, to a file or a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import Metric, whole
from gpuzip._core.device import as_device
from gpuzip._core.inputs import as_matrix
from gpuzip._core.progress import Progress, shown_as_one
from gpuzip._core.rows import Matrix
from gpuzip.choose import FEWEST, Asked
from gpuzip.codecs import Quantizer, from_spec
from gpuzip.errors import GpuzipError
from gpuzip.large.compressed import Compressed
from gpuzip.large.destination import destination_of
from gpuzip.large.files import are_files, of_files
from gpuzip.large.job import begun
from gpuzip.large.plan import memory_of
from gpuzip.large.run import WHO, Run
from gpuzip.large.source import Source, digest, of_chunks, of_matrix
from gpuzip.large.training import check_goals

Files = str | os.PathLike[str]
Chunks = Iterable[Any] | Callable[[], Iterable[Any]]


def compress_file(
    src: Files | list[Files] | Matrix | Chunks,
    dst: Files,
    codec: Quantizer | str | None = None,
    *,
    column: str | None = None,
    key: str | None = None,
    format: str | None = None,
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
    seed: int = 0,
    sample_rows: int | None = None,
    shard_rows: int | None = None,
    max_memory: int | str | None = None,
    max_gpu_memory: int | str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = None,
    overwrite: bool = False,
) -> Compressed:
    """Compress rows that need not fit in memory, chunk by chunk, to a file or a dataset.

    A run that was interrupted goes on where it stopped when it is called again, and gives the same bytes.

    Parameters
    ----------
    src : path, list of paths, (N, D) float matrix, iterable, or callable
        A file (.npy, .npz, .safetensors, .parquet, .arrow, .feather, .h5, .fvecs, .bvecs, .ivecs), all such
        files of a folder by name, or those of a list in its order; or chunks of rows, tensors or arrays
        (n, D). A callable returns the chunks anew. Chunks of a generator, which come once, are kept in a
        temporary file beside `dst` where a codec has to be fitted first.
    dst : str or path-like
        A file if it ends in .ezip, else the folder of a `Dataset` whose ids are row numbers.
    codec : Quantizer or str, optional
        A codec, fitted or not, or its text, such as "PQ48x8". Default: chosen by what is asked for; else
        product codes, as in `gpuzip.compress`.
    column, key : str, optional
        Name of the column (Parquet, Arrow), or of the array, tensor or dataset (npz, safetensors, HDF5).
        Needed where a file has several.
    format : str, optional
        Format of the files, such as "npy". Default: by their suffix.
    max_bytes, bits_per_dim, ratio, min_cosine, min_recall, k, metric, queries, rescore, for_ : optional
        As in `gpuzip.compress`, measured on the sample: recall is that of a search among its rows. "storage"
        is refused.
    seed : int, default 0
        Seed of the sample and of all random draws.
    sample_rows : int, optional
        Rows to fit on, or to choose by; a uniform sample that depends on the seed and not on chunks. Default:
        65,536, or fewer where memory has no room for them. A fitted codec needs none.
    shard_rows : int, optional
        Rows that are committed at a time, rounded down to whole blocks of checksums. Default: 262,144, or 64
        MB of codes.
    max_memory : int or str, default "1GiB"
        Most bytes to take beside what the process has: bytes, or text such as "2GB".
    max_gpu_memory : int or str, optional
        The same on the GPU. Default: half of what is free there.
    device : torch.device or str, default "cpu"
        Device to fit and encode on.
    progress : bool or callable, optional
        True shows a bar with rate and time left. A function is called after every chunk with the rows encoded
        and all rows, or 0 where nothing says how many there are.
    overwrite : bool, default False
        Replace what is at `dst` once the new one is complete, and drop an interrupted run that had other
        arguments.

    Returns
    -------
    Compressed
        Facts, sizes and times. print() shows them.

    Raises
    ------
    GpuzipError
        If `dst` is there, if an interrupted run was of another source or had other arguments (the message
        names them), or if memory is too little.
    FormatError
        If a file is damaged, or says more than it holds.

    Notes
    -----
    The sample is read in one pass; of files that can be read anywhere, by its rows alone where that is less
    work. Up to 4,000 of its rows are held out of a fit, and `held_out` of the codec says how it does on them.

    The bytes do not depend on the memory that is allowed, unless that makes the sample smaller.

    Examples
    --------
    >>> import gpuzip, pathlib, tempfile, torch
    >>> x = torch.randn(1000, 32, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = gpuzip.compress_file(x.split(100), pathlib.Path(folder) / "x.ezip", "SQ8")
    ...     codes = gpuzip.open(done.path, verify=True)
    >>> codes.shape, done.resumed
    ((1000, 32), 0)
    """
    goals = {
        "max_bytes": max_bytes,
        "bits_per_dim": bits_per_dim,
        "ratio": ratio,
        "min_cosine": min_cosine,
        "min_recall": min_recall,
        "k": k,
        "metric": metric,
        "queries": None if queries is None else digest_of(queries),
        "rescore": rescore,
        "for_": for_,
    }
    check_goals(WHO, codec, goals)
    asked = None
    if any(value is not None and value is not False for value in goals.values()):
        asked = Asked(
            max_bytes,
            bits_per_dim,
            ratio,
            min_cosine,
            min_recall,
            10 if k is None else k,
            "cosine" if metric is None else metric,
            rescore,
            for_,
        )
    where = as_device(WHO, device)
    memory = memory_of(WHO, max_memory, max_gpu_memory, where)
    target = destination_of(WHO, dst, overwrite)
    source = _source(src, _name(column, key), format)
    if source.n == 0:
        raise GpuzipError(f"{WHO}: src must have at least one row; it has none.")
    run = Run(
        source=source,
        target=target,
        codec=_codec(codec),
        asked=asked,
        queries=queries,
        seed=whole(WHO, "seed", seed, 0),
        sample_rows=None if sample_rows is None else whole(WHO, "sample_rows", sample_rows, FEWEST),
        shard_rows=None if shard_rows is None else whole(WHO, "shard_rows", shard_rows),
        memory=memory,
        device=where,
        progress=shown_as_one(progress),
    )
    with begun(WHO, target.work, run.about(goals), restart=overwrite):
        done = run.go()
        if are_files(src) and _source(src, _name(column, key), format).facts != source.facts:
            raise GpuzipError(
                f"{WHO}: src must not change while it is read; it did. Begin anew by overwrite=True."
            )
        return done(target.finish())


def _codec(codec: Any) -> Quantizer | None:
    if isinstance(codec, str):
        codec = from_spec(codec)
    if codec is not None and not isinstance(codec, Quantizer):
        raise GpuzipError(
            f"{WHO}: codec must be a codec of search, such as ProductQuantizer(48, 8), or its text, such as "
            f"'PQ48x8'; got {codec!r:.200}. An archive is made of rows in memory: TransformCoder.encode."
        )
    return codec


def _name(column: str | None, key: str | None) -> str | None:
    if column is not None and key is not None:
        raise GpuzipError(f"{WHO}: one of column and key must be given; got both. Omit one.")
    return column if key is None else key


def _source(src: Any, name: str | None, format: str | None) -> Source:
    if are_files(src):
        return of_files(WHO, src, name, format)
    if name is not None or format is not None:
        raise GpuzipError(f"{WHO}: column, key and format must come with files; got rows. Omit them.")
    if isinstance(src, Tensor | np.ndarray):
        return of_matrix(WHO, src)
    return of_chunks(WHO, src)


def digest_of(queries: Matrix) -> str:
    """BLAKE2b-128 of all values."""
    matrix = as_matrix(WHO, "queries", queries)
    if isinstance(matrix, Tensor):
        return digest(matrix.detach().cpu())
    return digest(torch.from_numpy(np.ascontiguousarray(matrix)))
