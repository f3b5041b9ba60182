"""Lloyd-Max quantization: each value, or block of values, is stored as the index of its nearest level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte
from gpuzip._core.checks import is_whole, whole
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs.base import Learned, LookupTable, check_names
from gpuzip.codecs.pq import nearest_divisors
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import bucketize, bucketize_packed, code_bytes, decode, encode, pack_bits
from gpuzip.ops.row_reader import RowReader, table_reader
from gpuzip.search.memory import scorer_bytes_without_tables
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.layouts import TableLayout
from gpuzip.search.scorers.tables import entries, norms_by_table, pq_scorer, prepared_tables
from gpuzip.training.kmeans import kmeans
from gpuzip.training.scalar_levels import optimal_levels

_VALUES = 1 << 24  # most values that levels are found from
_BLOCKS_PER_LEVEL = 4096  # most blocks per level for k-means
_PER = ("tensor", "dim")


@dataclass(frozen=True, eq=False)
class Levels(Learned):
    """What `fit` learns: codebook (C, K, block_len) float32, and the number of columns.

    Levels ascend if block_len is 1.
    """

    codebook: Tensor
    d: int


@dataclass(frozen=True, eq=False, repr=False)
class LloydMaxQuantizer(Quantizer[Levels]):
    """Quantize to 2**bits levels of least squared error; they need not be equally spaced.

    Parameters
    ----------
    bits : int, default 1
        Bits per code, 1 to 8.
    block_len : int, default 1
        Number of neighbouring values per code, a divisor of d. Levels are points of block_len dimensions.
    per : {"tensor", "dim"} or int, default "tensor"
        Scope of a codebook: all dimensions ("tensor"), one dimension or block ("dim"), or this many
        neighbouring dimensions.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Notes
    -----
    A row takes ceil(d / block_len * bits / 8) bytes. A level is a float32.

    Levels of single values are found by dynamic programming and Lloyd's iterations on sorted values, from at
    most 16.8 million values (a sample of rows if there are more). Levels of blocks are found by k-means.

    Source: Lloyd, "Least squares quantization in PCM", 1957; Max, "Quantizing for minimum distortion", 1960;
    smallfry, whose bits are per block too.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.LloydMaxQuantizer(bits=2).fit(x).code_size
    8
    """

    id = "lloydmax"
    plain_torch_scores_alike = True
    decodes_at_once = True
    gather_cost = 1
    spec_words: ClassVar[Words] = {"LloydMax{bits}": {}}

    bits: int = 1
    block_len: int = 1
    per: str | int = "tensor"

    def __post_init__(self) -> None:
        who = "LloydMaxQuantizer"
        object.__setattr__(self, "bits", whole(who, "bits", self.bits, 1, 8))
        object.__setattr__(self, "block_len", whole(who, "block_len", self.block_len))
        if is_whole(self.per):
            object.__setattr__(self, "per", whole(who, "per", self.per))
        elif self.per not in _PER:
            raise GpuzipError(
                f"{who}: per must be 'tensor', 'dim' or a number of dimensions; got {self.per!r}."
            )
        super().__post_init__()

    @classmethod
    def from_codebook(cls, codebook: Tensor, d: int) -> LloydMaxQuantizer:
        """Make a fitted codec from its levels.

        Parameters
        ----------
        codebook : (C, 2**bits, block_len) float tensor
            C codebooks for equal parts of the columns. Levels must ascend if block_len is 1.
        d : int
            Number of columns.

        Returns
        -------
        LloydMaxQuantizer
            The fitted codec.

        Raises
        ------
        GpuzipError
            If the levels do not fit.
        """
        try:
            C, K, S = codebook.shape
            per = "tensor" if C == 1 else d // C
            config = {"bits": K.bit_length() - 1, "block_len": S, "per": per, "d": d}
            return cls.restore(config, {"codebook": codebook.detach().float().contiguous()})
        except (FormatError, ValueError) as error:
            raise GpuzipError(f"LloydMaxQuantizer.from_codebook: {error}") from error

    @property
    def code_size(self) -> int:
        return code_bytes(self.width // self.block_len, self.bits)

    @property
    def codebook(self) -> Tensor:
        """(C, 2**bits, block_len) float32: the levels, one codebook per part of the dimensions."""
        return self.learned("codebook").codebook

    @property
    def centroids(self) -> Tensor:
        """(d / block_len, 2**bits, block_len) float32: the levels, one codebook per code of a row."""
        return self.codebook.repeat_interleave(self._share, 0)

    @property
    def _share(self) -> int:
        """Number of neighbouring codes per codebook."""
        return self.width // self.block_len // len(self.codebook)

    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> LloydMaxQuantizer:
        """Find the levels.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 1.
        seed : int, default 0
            Seed of the sample of rows, of k-means and of the rotation.
        progress : bool or callable, optional
            As in `Codec.fit`.

        Returns
        -------
        LloydMaxQuantizer
            A fitted copy.

        Raises
        ------
        GpuzipError
            If x has no rows, or block_len or per does not fit d.
        """
        return self._fit_rows(x, seed, progress)

    def _learn(self, rows: Rows, seed: int) -> LloydMaxQuantizer:
        who = rows.who
        if rows.n == 0:
            raise GpuzipError(f"{who}: x must have at least one row; got none.")
        K, width = 1 << self.bits, self._width_of(rows)
        parts = self._parts(who, width)
        rows, rotation = self.rotated(rows, seed, width // self.block_len, K)
        limit = (
            _VALUES if self.block_len == 1 else min(_VALUES, K * _BLOCKS_PER_LEVEL * parts * self.block_len)
        )
        sample = rows.sample(max(1, limit // rows.d), seed).float()
        by_part = sample.view(len(sample), parts, -1).transpose(0, 1)  # [C, n, d / C]
        if self.block_len == 1:
            codebook = optimal_levels(by_part.reshape(parts, -1), K)[:, :, None]
        else:
            codebook = _levels_of_blocks(by_part.reshape(parts, -1, self.block_len), K, seed)
        return replace(self, fitted=Levels(codebook, rows.d), rotation=rotation)

    def _parts(self, who: str, d: int) -> int:
        if d % self.block_len:
            divisors = ", ".join(map(str, nearest_divisors(d, self.block_len)))
            raise GpuzipError(
                f"{who}: block_len must divide d={d}; got {self.block_len}. Use block_len={divisors}."
            )
        if isinstance(self.per, str):
            return 1 if self.per == "tensor" else d // self.block_len
        if d % self.per or self.per % self.block_len:
            raise GpuzipError(
                f"{who}: per must divide d={d} and be a multiple of block_len={self.block_len}; "
                f"got {self.per}."
            )
        return d // self.per

    def _encode(self, x: Tensor) -> Tensor:
        if self.block_len > 1:
            return encode(x, self.centroids)
        levels = self.codebook[:, :, 0]
        ends = (levels[:, 1:] + levels[:, :-1]) / 2
        ends = ends if len(ends) == 1 else ends.repeat_interleave(self._share, 0)
        if self.bits in (1, 2, 4, 8):
            return bucketize_packed(x, ends, self.bits)
        return pack_bits(bucketize(x, ends), self.bits)

    def _decode(self, data: Tensor) -> Tensor:
        return decode(data, self.codebook, None, self._share)

    def _decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        return decode(data, self.codebook, ids, self._share)

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        return table_reader(data, self.codebook, self._share) if isinstance(data, Tensor) else None

    def _as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        return LookupTable(self.codebook, self._share), data

    def _norms(self, data: Tensor) -> Tensor:
        return norms_by_table(data, self._tables())

    def _tables(self) -> Tensor:
        """`centroids` per nibble, or per byte on a GPU, if those hold whole codes; else per code."""
        wide, share = by_byte(self.codebook, self._share, entries(self.device))
        return wide.repeat_interleave(share, 0)

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        tables, layout = packed.remembered("tables", self._tables), TableLayout(self.codebook, self._share)
        return pq_scorer(packed, tables, queries, metric, mask, layout)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | None:
        tables, layout = packed.remembered("tables", self._tables), TableLayout(self.codebook, self._share)
        return prepared_tables(packed, tables, metric, layout)

    @property
    def scorer_bytes(self) -> int:
        by_byte = 256 * self.code_size if self.bits in (1, 2, 4, 8) else 0
        return 3 * 4 * max(by_byte, (self.width // self.block_len) << self.bits)

    @property
    def first_scorer_bytes(self) -> int:
        return scorer_bytes_without_tables(self.width, self.code_size, self.scorer_bytes)

    def _config(self) -> dict[str, Any]:
        return {"bits": self.bits, "block_len": self.block_len, "per": self.per, "d": self.width}

    def _state(self) -> dict[str, Tensor]:
        return {"codebook": self.learned("state").codebook}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> LloydMaxQuantizer:
        check_names(cls.id, config, {"bits", "block_len", "per", "d"}, state, {"codebook"})
        codebook, d = state["codebook"], config["d"]
        try:
            codec = cls(config["bits"], config["block_len"], config["per"])
            if not is_whole(d) or d < 1:
                raise GpuzipError(f"d is {d!r}.")
            shape = codec._parts("d", d), 1 << codec.bits, codec.block_len
        except (GpuzipError, TypeError) as error:
            raise FormatError(
                f"lloydmax: its settings are not those of a Lloyd-Max quantizer: {error}"
            ) from error
        fits = codebook.shape == shape and codebook.dtype == torch.float32
        if not fits or (codec.block_len == 1 and not bool((codebook.diff(dim=1) >= 0).all())):
            raise FormatError(
                f"lloydmax: codebook must be {shape} float32, ascending; got {tuple(codebook.shape)} "
                f"{codebook.dtype}."
            )
        return replace(codec, fitted=Levels(codebook, d))


def _levels_of_blocks(blocks: Tensor, K: int, seed: int) -> Tensor:
    """(C, n, S) -> (C, K, S). If there are fewer than K distinct blocks, they are the levels, padded."""
    few = [torch.unique(part[: 64 * K], dim=0) for part in blocks]
    if any(len(levels) < K for levels in few):
        return torch.stack([_levels_of_few(part, K, seed) for part in blocks])
    rows = blocks.transpose(0, 1).reshape(blocks.shape[1], -1)
    return kmeans(rows, len(blocks), K, seed=seed, init="kmeans++").centroids


def _levels_of_few(blocks: Tensor, K: int, seed: int) -> Tensor:
    levels = torch.unique(blocks, dim=0)
    if len(levels) <= K:
        return torch.cat([levels, levels[-1:].expand(K - len(levels), -1)])
    return kmeans(blocks, 1, K, seed=seed, init="kmeans++").centroids[0]
