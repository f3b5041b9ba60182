"""Binary quantization: one bit per value, scored by Hamming distance or with float queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import METRICS, SearchMetric, is_whole
from gpuzip._core.device import is_gpu
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress
from gpuzip._core.rows import SOUND_SQUARES, Matrix, Rows
from gpuzip.codecs.base import Learned, LookupTable, check_names
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import bits_above, bucketize_packed, decode
from gpuzip.ops.row_reader import RowReader, bit_reader
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import OfCodesOrFloats, Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.hamming import HammingScorer, prepared_hamming
from gpuzip.search.scorers.tables import entries, norms_by_table, pq_scorer, prepared_tables

_SAMPLE = 65_536  # rows for medians
_ROWS = {"cpu": 1024, "cuda": 1 << 16}  # per block of a sum
_THRESHOLDS = ("mean", "dim_mean", "median")
_LEVELS = ("means", "sign")


@dataclass(frozen=True, eq=False)
class Halves(Learned):
    """What `fit` learns.

    threshold: (1,) or (d,) float32. levels: (2, d) float32, the values that bits 0 and 1 decode to.
    """

    threshold: Tensor
    levels: Tensor

    @property
    def d(self) -> int:
        return int(self.levels.shape[1])

    def __getstate__(self) -> dict[str, Tensor]:
        """Without what decoding makes of them."""
        return {"threshold": self.threshold, "levels": self.levels}

    @cached_property
    def by_byte(self) -> Tensor:
        """Values per byte of a code. Made once per codec: 1 KB per dimension."""
        levels = torch.nn.functional.pad(self.levels, (0, -self.d % 8))
        zeros, ones = levels.view(2, -1, 1, 8)
        byte, place = (torch.arange(n, device=levels.device) for n in (256, 8))
        return torch.where((byte[:, None] >> (7 - place)) & 1 == 1, ones, zeros)


@dataclass(frozen=True, eq=False, repr=False)
class BinaryQuantizer(Quantizer[Halves]):
    """Store one bit per dimension: 1 where a value is above the threshold, else 0.

    Parameters
    ----------
    threshold : float or {"mean", "dim_mean", "median"}, default 0.0
        A number (0 as in sentence-transformers); "mean" of all values; or each dimension's mean ("dim_mean")
        or median ("median").
    levels : {"means", "sign"}, default "means"
        Decoded values: per dimension, the means of the values on each side of the threshold; or -1 and 1.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Notes
    -----
    Bits are packed 8 to a byte, the first dimension in the highest bit, zeros after the last: the bytes of
    numpy.packbits, sentence-transformers' "ubinary" and FAISS's binary indexes.

    `search` by "hamming" quantizes the queries too. "cosine", "ip" and "l2" score the decoded rows with the
    float query, which finds more of the true neighbors for the same bytes.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.tensor([[1.0, -1, 1, 1, -1, 1, 1, 1]])
    >>> gpuzip.BinaryQuantizer(levels="sign").fit(x).encode(x).data.tolist()
    [[183]]
    """

    id = "binary"
    plain_torch_scores_alike = True
    decodes_at_once = True
    gather_cost = 1
    encodes_once = True
    metrics: ClassVar[tuple[SearchMetric, ...]] = (*METRICS, "hamming")
    score_bytes = 8  # distance and score
    spec_words: ClassVar[Words] = {"Binary": {}, "LSH": {}, "LSHt": {"threshold": "median"}}

    threshold: float | str = 0.0
    levels: str = "means"

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, float | int) and not isinstance(self.threshold, bool)
        if not (self.threshold in _THRESHOLDS or (number and abs(float(self.threshold)) < float("inf"))):
            raise GpuzipError(
                "BinaryQuantizer: threshold must be a finite number or one of "
                f"{', '.join(_THRESHOLDS)}; got {self.threshold!r}."
            )
        if self.levels not in _LEVELS:
            raise GpuzipError(f"BinaryQuantizer: levels must be 'means' or 'sign'; got {self.levels!r}.")
        super().__post_init__()

    @property
    def code_size(self) -> int:
        return -(-self.width // 8)

    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> BinaryQuantizer:
        """Find thresholds and levels. Means are over all rows, medians over at most 65,536.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on.
        seed : int, default 0
            Seed of the sample of rows and of the rotation.
        progress : bool or callable, optional
            As in `Codec.fit`.

        Returns
        -------
        BinaryQuantizer
            A fitted copy.
        """
        return self._fit_rows(x, seed, progress)

    def _learn(self, rows: Rows, seed: int) -> BinaryQuantizer:
        who = rows.who
        if rows.n == 0:
            raise GpuzipError(f"{who}: x must have at least one row; got none.")
        rows, rotation = self.rotated(rows, seed)
        threshold = self._threshold(rows, seed)
        if self.levels == "sign":
            levels = (
                torch.tensor([[-1.0], [1.0]], dtype=torch.float32, device=rows.device)
                .expand(2, rows.d)
                .contiguous()
            )
        else:
            levels = _means_of_sides(rows, threshold)
        return replace(self, fitted=Halves(threshold, levels), rotation=rotation)

    def _threshold(self, rows: Rows, seed: int) -> Tensor:
        if self.threshold == "median":
            return _medians(rows, seed)
        if isinstance(self.threshold, str):
            total = sum(block.sum(0, dtype=torch.float64) for _, block in rows.blocks())
            assert isinstance(total, Tensor)
            means = (total / rows.n).float()
            return means if self.threshold == "dim_mean" else (total.mean() / rows.n).float()[None]
        return torch.tensor([float(self.threshold)], dtype=torch.float32, device=rows.device)

    def _encode(self, x: Tensor) -> Tensor:
        threshold = self.learned("encode").threshold
        if not is_gpu(x.device):
            out = torch.empty((len(x), self.code_size), dtype=torch.uint8, device=x.device)
            bits_above(x, threshold, out)
            return out
        return mirrored(bucketize_packed(x, threshold[:, None], 1))

    def _encode_once(self, x: Tensor, out: Tensor) -> bool:
        return bits_above(x, self.learned("encode").threshold, out) < SOUND_SQUARES

    @property
    def centroids(self) -> Tensor:
        """(B, 256, 8) float32: the eight values per byte of a code; zeros after the last dimension."""
        return self.learned("centroids").by_byte

    def _decode(self, data: Tensor) -> Tensor:
        if self._is_wide:  # a table by byte is 128 times the levels
            table, codes = self._as_table(data)
            return decode(codes, table.codebook)[:, : self.width]
        return decode(data, self.centroids)[:, : self.width]

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        return bit_reader(data, self.learned("decode").levels) if isinstance(data, Tensor) else None

    def _as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        levels = self.learned("as_table").levels  # [2, d]
        return LookupTable(levels.T[:, :, None].contiguous(), 1), mirrored(data)

    def _norms(self, data: Tensor) -> Tensor:
        return norms_by_table(data, self.centroids)

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        if metric == "hamming":
            bits = queries if queries.dtype == torch.uint8 else self._encode(queries)
            codes = packed.data
            return HammingScorer(codes, bits, mask, lambda: packed.turned([codes]))
        queries = torch.nn.functional.pad(queries, (0, -self.width % 8))
        if entries(queries.device) == 256:
            return pq_scorer(
                packed, packed.remembered("bytes", lambda: self.centroids), queries, metric, mask
            )
        queries = queries.view(len(queries), -1, 2, 4).flip(2).flatten(1)  # as `_by_nibble` has it
        return pq_scorer(packed, packed.remembered("nibbles", self._nibbles), queries, metric, mask)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | OfCodesOrFloats | None:
        if metric == "hamming":
            return prepared_hamming(packed, packed.data, self.code_size, self.width, self._bits_of_few)
        if self.width % 8:
            return None
        ready = prepared_tables(packed, packed.remembered("nibbles", self._nibbles), metric)
        return None if ready is None else ready.after(_by_nibble)

    def _bits_of_few(self, queries: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What `_encode` returns for few rows, by numpy, whose calls take less time."""
        return np.packbits(queries > self.learned("encode").threshold.numpy(), axis=1)

    def _nibbles(self) -> Tensor:
        """(2B, 16, 4) float32: the values of the low nibble of each byte, then of the high one."""
        bytes_ = self.centroids
        return torch.stack([bytes_[:, :16, 4:], bytes_[:, ::16, :4]], 1).flatten(0, 1)

    @property
    def scorer_bytes(self) -> int:
        return 3 * 4 * 256 * self.code_size

    def _config(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "levels": self.levels, "d": self.width}

    def _state(self) -> dict[str, Tensor]:
        fitted = self.learned("state")
        return {"threshold": fitted.threshold, "levels": fitted.levels}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> BinaryQuantizer:
        check_names(cls.id, config, {"threshold", "levels", "d"}, state, {"threshold", "levels"})
        threshold, levels, d = state["threshold"], state["levels"], config["d"]
        plausible = (
            is_whole(d)
            and d >= 1
            and threshold.dtype == levels.dtype == torch.float32
            and threshold.shape in ((1,), (d,))
            and levels.shape == (2, d)
        )
        if not plausible:
            raise FormatError(
                f"binary: threshold must be (1,) or (d,) float32 and levels (2, d) with d={d!r}; got "
                f"{tuple(threshold.shape)} {threshold.dtype} and {tuple(levels.shape)} {levels.dtype}."
            )
        return cls(config["threshold"], config["levels"], fitted=Halves(threshold, levels))


def _by_nibble(queries: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(Q, 8B) columns in the order of nibbles: the low nibble of a byte holds the last four."""
    return queries.reshape(len(queries), -1, 2, 4)[:, :, ::-1].reshape(len(queries), -1)


def mirrored(packed: Tensor) -> Tensor:
    """Reverse the order of the bits in each byte."""
    for width, low in ((1, 0x55), (2, 0x33), (4, 0x0F)):
        packed = ((packed & low) << width) | ((packed >> width) & low)
    return packed


def _medians(rows: Rows, seed: int) -> Tensor:
    """Medians; for an even count the lower of the two middle values, so that at most half are above."""
    return rows.sample(_SAMPLE, seed).float().median(0).values


def _means_of_sides(rows: Rows, threshold: Tensor) -> Tensor:
    """(2, D): means of the values up to the threshold and of those above; the threshold if there are none."""
    sums = torch.zeros((2, rows.d), dtype=torch.float64, device=rows.device)
    counts = torch.zeros_like(sums)
    for x in (part for _, block in rows.blocks() for part in block.split(_ROWS[block.device.type])):
        above = x > threshold
        values = torch.stack([torch.where(above, 0, x), torch.where(above, x, 0)])
        sums += values.sum(1, dtype=torch.float64)
        count = above.sum(0)
        counts += torch.stack([len(x) - count, count])
    return torch.where(counts > 0, sums / counts.clamp(min=1), threshold.double()).float()
