"""How evenly codes use their codewords."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuzip.codecs import ProductQuantizer, ResidualQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.ops import unpack_bits
from gpuzip.plots.style import BLACK, BLUE, TEXT, axes_of, labelled
from gpuzip.plots.values import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def use_of_codewords(codes: Codes, ax: Axes | None = None) -> Axes:
    """Draw how many rows have each codeword, from the most used to the least, relative to equal use.

    Parameters
    ----------
    codes : Codes of a ProductQuantizer or a ResidualQuantizer
        Codes of many more rows than codewords per code.
    ax : matplotlib Axes, optional
        Axes to draw on.

    Returns
    -------
    Axes
        The axes that were drawn on: the median over all sub-spaces (or stages), and a band from the least to
        the most even. The mean entropy of a code stands in it.

    Raises
    ------
    GpuzipError
        For codes of another codec, or of no rows.

    Notes
    -----
    Equal use is a flat line at 1, with an entropy of all bits. Codewords that no row has are wasted bits.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from matplotlib.figure import Figure
    >>> x = torch.randn(640, 8, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.ProductQuantizer(m=4, nbits=4).fit(x).encode(x)
    >>> gpuzip.plots.use_of_codewords(codes, Figure().subplots()).get_xlabel()
    'Codewords by falling use'
    """
    who = "plots.use_of_codewords"
    counts = _counts(who, codes)  # (M, K)
    use = -np.sort(-counts, axis=1) / counts.mean(1, keepdims=True)
    ax = axes_of(who, ax)
    ranks = np.arange(1, use.shape[1] + 1)
    ax.fill_between(
        ranks, use.min(0), use.max(0), color=BLUE, alpha=0.25, linewidth=0, label="all sub-spaces"
    )
    ax.plot(ranks, np.median(use, 0), color=BLUE, linewidth=1.2, label="median")
    ax.axhline(1, color=BLACK, linewidth=0.8, linestyle="--", label="equal use")
    ax.set_xlim(1, max(2, use.shape[1]))
    ax.set_ylim(0)
    ax.legend(fontsize=TEXT - 1, frameon=False)
    bits = np.log2(use.shape[1])
    ax.set_title(f"{_entropy(counts):.2f} of {bits:g} bits per code are used", fontsize=TEXT)
    return labelled(ax, "Codewords by falling use", "Rows, of the mean")


def _counts(who: str, codes: Codes) -> Array:
    """(M, K) rows that have each codeword of each code."""
    codec = codes.codec if isinstance(codes, Codes) else None
    if not isinstance(codec, ProductQuantizer | ResidualQuantizer):
        got = type(codes).__name__ if codec is None else f"codes of {codec!r}"
        raise GpuzipError(
            f"{who}: codes must be of a ProductQuantizer or a ResidualQuantizer, which have codewords; "
            f"got {got}."
        )
    if len(codes) == 0:
        raise GpuzipError(f"{who}: codes must be of at least one row; got none.")
    M = len(codec.centroids) if isinstance(codec, ProductQuantizer) else codec.nsplits * codec.m
    words = unpack_bits(codes.packed.data[:], M, codec.nbits).cpu().numpy()
    return np.stack([np.bincount(column, minlength=1 << codec.nbits) for column in words.T])


def _entropy(counts: Array) -> float:
    """Mean entropy of the codes, in bits."""
    shares = counts / counts.sum(1, keepdims=True)
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return float(-(shares * logs).sum(1).mean())
