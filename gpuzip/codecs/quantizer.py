"""The base class of codecs: the contract of base.py, and `encode`, which returns `Codes`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from gpuzip._core.planes import Planes, empty
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs.base import Codec, Fitted
from gpuzip.codecs.codes import Codes
from gpuzip.storage import FileInfo, Target


@dataclass(frozen=True, eq=False, repr=False)
class Quantizer(Codec[Fitted]):
    """Base class of codecs. `gpuzip.Codec` lists what a subclass implements.

    Parameters
    ----------
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.
    """

    def encode(self, x: Matrix, *, progress: Progress = None) -> Codes:
        """Compress rows, in blocks of bounded size.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to compress. A tensor must be on the codec's device. An array is copied there block by block.
        progress : bool or callable, optional
            True shows a bar. A function is called after every block with the number of rows
            done and the number of all rows.

        Returns
        -------
        Codes
            The N compressed rows.

        Examples
        --------
        >>> import gpuzip, torch
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> gpuzip.HalfQuantizer().fit(x).encode(x).shape
        (64, 8)
        """
        who = f"{type(self).__name__}.encode"
        self.check_fitted(who)
        rows = Rows(who, x, self.d, self.device)
        data = empty(rows.n, self.plane_sizes, self.device)
        with reporting(who, progress, "encode", rows.n) as report:
            for done in self._encoded(rows, data):
                report(done)
        return Codes(self, data, rows.dtype)

    def _encoded(self, rows: Rows, data: Tensor | Planes) -> Iterator[int]:
        """Encode rows to data; yield how many are done after each block."""
        if self.encodes_once and self._rotation is None and self.device.type == "cpu":
            yield from rows.passed_over(
                lambda start, block: self._encode_once(block, data[start : start + len(block)])
            )
            return
        for start, block in rows.blocks():
            data[start : start + len(block)] = self.encode_block(block.to(self.device))
            yield start + len(block)

    def save(self, path: Target) -> FileInfo:
        """Write the fitted codec alone: an .ezip file of no rows, which `gpuzip.load_codec` reads.

        Parameters
        ----------
        path : str, path-like or binary file
            File to write, or a file that is open for writing, such as io.BytesIO().

        Returns
        -------
        FileInfo
            The header of the file.

        Raises
        ------
        NotFittedError
            If the codec is not fitted.

        Examples
        --------
        >>> import gpuzip, io, torch
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> file = io.BytesIO()
        >>> gpuzip.ScalarQuantizer().fit(x).save(file).n
        0
        """
        self.check_fitted(f"{type(self).__name__}.save")
        return Codes(self, empty(0, self.plane_sizes, self.device)).save(path)
