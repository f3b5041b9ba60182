"""A codec is fitted to rows that lie on several ranks, and encodes them."""

from __future__ import annotations

from typing import Any

from gpuzip._core.checks import whole
from gpuzip._core.progress import Progress
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs import Codec, Quantizer
from gpuzip.codecs.codes import Codes
from gpuzip.distributed.codec import check_codec, digest_of, packed, unpacked
from gpuzip.distributed.drawing import SAMPLE, drawn
from gpuzip.distributed.group import TIMEOUT, Ranks
from gpuzip.distributed.reduced import fit_reduced


def fit(
    codec: Quantizer,
    x_of_this_rank: Matrix,
    *,
    seed: int = 0,
    n: int | None = SAMPLE,
    group: Any = None,
    timeout: float = TIMEOUT,
) -> Quantizer:
    """Fit one codec to the rows of all ranks.

    Parameters
    ----------
    codec : Quantizer
        The codec, with the same settings on all ranks.
    x_of_this_rank : (N, D) float tensor, array or memory map
        The rows of this rank, 0 or more.
    seed : int, default 0
        Seed of all random draws.
    n : int or None, default 65536
        Rows that are drawn and fitted to. None fits to all rows where they are, by sums over the ranks; see
        Notes.
    group, timeout : optional
        As in `search`. The others wait while rank 0 fits: timeout must be longer than that takes.

    Returns
    -------
    Quantizer
        A fitted copy, the same on every rank, on the device of this rank's rows.

    Raises
    ------
    GpuzipError
        On all ranks, if `fit` fails on one, or the codec cannot be fitted by sums.

    Notes
    -----
    With n, `sample` draws rows and rank 0 fits to them: the codec of ``codec.fit(sample(x, n))`` in one
    process, byte for byte. Of up to n rows that is ``codec.fit(x)``.

    With n=None a ProductQuantizer is trained on all rows by k-means, whose sums and counts are added over the
    ranks in each of 25 rounds. A rotation "pca" or "balanced", the parametric OPQ, is found by their second
    moments. Sums are of whole numbers, which no order changes, so that the codec has the same bytes for any
    number of ranks: values are rounded to N * 2**-62 of the largest norm for centroids, and to 2**-21 of the
    largest value for moments. It is not the codec of `fit` in one process, which draws its first centroids
    and rows otherwise. A rank has no more than a block of rows in memory.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from gpuzip import distributed
    >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    >>> distributed.fit(gpuzip.ScalarQuantizer(), x).is_fitted
    True
    """
    who = "distributed.fit"
    ranks = Ranks(who, group, timeout)
    rows, seed, n = ranks.all_do(
        lambda: (
            Rows(who, x_of_this_rank),
            whole(who, "seed", seed, 0),
            None if n is None else whole(who, "n", n),
        )
    )
    codec = ranks.all_do(lambda: check_codec(who, codec, fitted=False))
    ranks.same("codec", repr(codec).encode())
    if n is None:
        ranks.same("the columns of x and seed", repr((rows.d, seed)).encode())
        return fit_reduced(ranks, codec, rows, seed).to(rows.device)
    drawn_rows = drawn(ranks, rows, n, seed)
    content = ranks.all_do(lambda: packed(codec.fit(drawn_rows, seed=seed)) if ranks.rank == 0 else b"")
    return unpacked(ranks.from_first(content)).to(rows.device)


def encode(
    codec: Codec,
    x_of_this_rank: Matrix,
    *,
    progress: Progress = None,
    group: Any = None,
    timeout: float = TIMEOUT,
) -> Codes:
    """Compress the rows of this rank by a codec that all ranks have.

    Parameters
    ----------
    codec : Codec
        The fitted codec.
    x_of_this_rank : (N, D) float tensor, array or memory map
        The rows of this rank, 0 or more.
    progress : bool or callable, optional
        As in the codec's `encode`.
    group, timeout : optional
        As in `search`. Ranks with fewer rows wait for the others.

    Returns
    -------
    Codes
        The codes of these rows: the same bytes as those of one process.

    Raises
    ------
    GpuzipError
        On all ranks, if the codecs differ or one cannot encode its rows.

    Notes
    -----
    No rows are moved. A rank receives 24 bytes from each other rank.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from gpuzip import distributed
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> distributed.encode(gpuzip.HalfQuantizer().fit(x), x).shape
    (64, 8)
    """
    who = "distributed.encode"
    ranks = Ranks(who, group, timeout)
    fitted = ranks.all_do(lambda: check_codec(who, codec))
    if ranks.size > 1:
        ranks.same("codec", digest_of(fitted))
    codes: Codes = ranks.all_do(lambda: fitted.encode(x_of_this_rank, progress=progress))
    return codes
