"""TransformCoder: rows in as few bytes as their quality allows."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from gpuzip._core.checks import whole
from gpuzip._core.device import as_device
from gpuzip._core.progress import Progress
from gpuzip._core.rows import Matrix, Rows
from gpuzip.archive import exact, fitting
from gpuzip.archive.archive import Archive
from gpuzip.archive.dictionary import Dictionary
from gpuzip.archive.encoding import encoded, encoded_exactly
from gpuzip.archive.scheme import Scheme
from gpuzip.archive.transform import LARGEST_WIDTH
from gpuzip.errors import GpuzipError, NotFittedError
from gpuzip.ops.trellis import next_states
from gpuzip.storage.archive import LARGEST_BLOCK

_DIALS = ("min_cosine", "bits_per_dim", "max_bytes", "max_error", "max_row_error", "lossless")
_TRIES = 6  # steps, until a file has no more bytes than it may
_TOO_MANY = 1.02  # bytes that are asked to be fewer, per byte too many

#: Rows per block: what a single row costs to read.
BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class TransformCoder:
    """Compress rows for storage: principal directions, trellis-coded quantization and entropy coding.

    Codes of search, such as those of `ProductQuantizer`, have one length for all rows, so that a scan can
    read them. Where rows are only stored or sent, these take half to a third of the bytes for the same
    cosine. They stay within about 0.1 bits per value of the least that any codec needs for Gaussian rows.

    Give one of the first six arguments.

    Parameters
    ----------
    min_cosine : float, optional
        Least mean cosine between source and decoded rows.
    bits_per_dim : float, optional
        Most bits per value, with all that comes beside the rows.
    max_bytes : int, optional
        Most bytes of the file, with its quality. Where rows take more, `encode` learns a coarser step.
    max_error : float, optional
        Largest error of any value, guaranteed: each value is decoded to within max_error.
    max_row_error : float, optional
        Largest error of any row, as the length of the difference, guaranteed.
    lossless : bool, default False
        Decode the same bits.
    dictionary : Dictionary, str or path-like, optional
        What `train_dictionary` learned from other rows of the same model. Files refer to it.
    states : int, default 8
        States of the trellis: 4, 8, 16, 32, 64, 128 or 256. More take fewer bytes (64 about 1 %) and more
        time to encode (64 three times), and the same time to decode.
    block_rows : int, default 1024
        Rows per block. A single row is read by decoding its block.
    seed : int, default 0
        Seed of the sample to learn from.
    fitted : optional
        What `fit` learned; not for callers.

    Notes
    -----
    Trellis-coded quantization: Marcellin and Fischer, 1990, with the entropy-coded tables of Fischer and
    Wang, 1992. Entropy coder: asymmetric numeral systems, Duda, 2013.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> archive = gpuzip.TransformCoder(min_cosine=0.95).fit(x).encode(x)
    >>> archive.quality(x).row_cosine >= 0.95
    True
    """

    min_cosine: float | None = None
    bits_per_dim: float | None = None
    max_bytes: int | None = None
    max_error: float | None = None
    max_row_error: float | None = None
    lossless: bool = False
    dictionary: Dictionary | str | os.PathLike[str] | None = None
    states: int = 8
    block_rows: int = BLOCK_ROWS
    seed: int = 0
    fitted: Scheme | None = field(default=None, kw_only=True)

    id: ClassVar[str] = "transform"

    def __post_init__(self) -> None:
        given = list(self._given())
        if len(given) > 1 or (not given and self.fitted is None):
            raise GpuzipError(
                f"TransformCoder: one of {', '.join(_DIALS)} must be given; got "
                f"{' and '.join(given) or 'none'}."
            )
        for name in ("min_cosine", "bits_per_dim", "max_bytes", "max_error", "max_row_error"):
            self._check_number(name)
        whole("TransformCoder", "block_rows", self.block_rows)
        if self.block_rows > LARGEST_BLOCK:
            raise GpuzipError(
                f"TransformCoder: block_rows must be at most {LARGEST_BLOCK}; got {self.block_rows}. "
                "64 to 1024 suit."
            )
        next_states(self.states)

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        below = 1 if name == "min_cosine" else float("inf")
        if not is_number or not 0 < value < below:
            raise GpuzipError(f"TransformCoder: {name} must be a number within (0, {below}); got {value!r}.")

    def _given(self) -> dict[str, Any]:
        every = {name: getattr(self, name) for name in _DIALS}
        return {name: value for name, value in every.items() if value is not None and value is not False}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._given().items())
        return f"TransformCoder({given})"

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` made this coder."""
        return self.fitted is not None

    @property
    def scheme(self) -> Scheme:
        """What was learned. Raises NotFittedError before `fit`."""
        if self.fitted is None:
            raise NotFittedError(
                "TransformCoder: this coder is not fitted. Call .fit(x) and use what it returns."
            )
        return self.fitted

    @property
    def d(self) -> int:
        """Columns of the rows."""
        return self.scheme.d

    @property
    def device(self) -> torch.device:
        """Where rows are coded."""
        return self.scheme.device

    @property
    def nbytes(self) -> int:
        """Bytes of what was learned, as files store it."""
        return len(self.scheme.model)

    def to(self, device: torch.device | str) -> TransformCoder:
        """Copy the coder to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to code rows.

        Returns
        -------
        TransformCoder
            The coder on that device.
        """
        return replace(self, fitted=self.scheme.to(as_device("TransformCoder.to", device)))

    def fit(self, x: Matrix) -> TransformCoder:
        """Learn how to code rows like these.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            The rows to compress, or rows like them. Larger sets are sampled.

        Returns
        -------
        TransformCoder
            A fitted copy.
        """
        rows = Rows("TransformCoder.fit", x)
        if rows.d > LARGEST_WIDTH and not self._is_exact:
            raise GpuzipError(
                f"TransformCoder.fit: x must have at most {LARGEST_WIDTH} columns; got {rows.d}. Use "
                "max_error= or lossless=True, which take any number."
            )
        if rows.n == 0:
            raise GpuzipError("TransformCoder.fit: x must have at least one row; got none.")
        if self._is_exact:  # which is learned from the rows that are encoded, as it must hold for each
            return replace(self, fitted=exact.Exact(b"", rows.d, rows.dtype, None, rows.device))
        return replace(self, fitted=fitting.learned_for(self, rows).transform)

    @property
    def _is_exact(self) -> bool:
        return self.lossless or self.max_error is not None

    def encode(self, x: Matrix, *, progress: Progress = None) -> Archive:
        """Compress rows, some blocks at a time.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to compress. A tensor must be on the coder's device.
        progress : bool or callable, optional
            True shows a bar. A function is called with the rows done and all rows.

        Returns
        -------
        Archive
            The N compressed rows.

        Raises
        ------
        GpuzipError
            If the file has more bytes than max_bytes or bits_per_dim allow, however coarse the step.
        """
        rows = Rows("TransformCoder.encode", x, self.d, self.device)
        if self._is_exact:
            scheme, blocks, kept = encoded_exactly(rows, self.max_error, self.block_rows)
            return Archive(replace(self, fitted=scheme), blocks, rows.n, rows.dtype, kept)
        archive, most = encoded(self, rows, progress), fitting.most_bytes(self, rows)
        if most is None or not rows.n:
            return archive
        aim: float = most
        for _ in range(_TRIES):
            if (taken := archive.most_bytes) <= most:
                return archive
            aim -= _TOO_MANY * (taken - most)
            if aim <= 0:
                break
            coarser = fitting.learned_for(self, rows, aim).transform
            archive = encoded(replace(self, fitted=coarser), rows)
        raise GpuzipError(
            f"TransformCoder.encode: these rows take {taken} bytes, at most {most} were asked for. Ask for "
            "more, or leave out rows of huge values, which are stored as they are."
        )
