"""Scalar quantization: each value is stored as the index of the step of its range that it lies in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.device import is_capturing, is_gpu, kind
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress
from gpuzip._core.rows import LARGEST_NORM, SOUND_SQUARES, Matrix, Rows
from gpuzip.codecs._ranges import RANGES, Given, check_given, find_range
from gpuzip.codecs.base import Learned, LookupTable, check_names
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import code_bytes, pack_bits, scalar_bytes, scalar_decode, scalar_encode, unpack_bits
from gpuzip.ops.one_pass import reads_nibbles
from gpuzip.ops.row_reader import RowReader, step_reader
from gpuzip.search.memory import scorer_bytes_without_tables
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.layouts import MixedLayout
from gpuzip.search.scorers.scalar import FEWEST_ROWS, Coding, ScalarScorer, coding_of, prepared_scalar
from gpuzip.search.scorers.tables import pq_scorer, prepared_tables

_GIVEN = "given"  # stored in place of a range that the caller gave, which the steps hold


@dataclass(frozen=True, eq=False)
class Steps(Learned):
    """What `fit` learns: code c decodes to start + (c + 0.5) * step. Both are (C,) float32, C = 1 or d."""

    start: Tensor
    step: Tensor
    d: int


@dataclass(frozen=True, eq=False, repr=False)
class ScalarQuantizer(Quantizer[Steps]):
    """Divide each dimension's range into equal steps, and store the index of each value's step.

    Parameters
    ----------
    bits : int, default 8
        Bits per code, 1 to 8.
    range : {"minmax", "quantile", "mse"} or (low, high), default "minmax"
        "minmax": from the least to the largest value. "quantile": without the share `tail` of the values on
        each side. "mse": the part of min to max, about its middle, of least squared error. Or two numbers, or
        two arrays of d values (sentence-transformers' `ranges`, (2, d)). Values outside take the nearest
        code.
    per : {"dim", "tensor"}, default "dim"
        One range per dimension, or one for all dimensions.
    symmetric : bool, default False
        Make the range symmetric about 0, with steps that decode 0 to 0.
    signed : bool, default False
        Store code - 2**(bits - 1) in two's complement, like int8.
    steps : int, optional
        Number of steps per range. Default: 2**bits, or 2**bits - 1 if symmetric. 255 gives the codes of
        sentence-transformers and FAISS; 254 with range=(-1, 1) those of (x + 1) * 127 as uint8.
    tail : float, default 0.001
        Share of the values left out on each side by "quantile", 0 to below 0.5.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Notes
    -----
    A row takes ceil(d * bits / 8) bytes. A constant dimension decodes to its value. Scores are those of the
    decoded rows: integer products find the candidates, and float32 sums score them.

    Source: FAISS ScalarQuantizer.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.ScalarQuantizer(bits=4).fit(x).code_size
    16
    """

    id = "scalar"
    encodes_once = True
    decodes_at_once = True
    score_bytes = 8  # blocks of scores, then their concatenation
    spec_words: ClassVar[Words] = {"SQ{bits}": {}}

    bits: int = 8
    range: str | Given = "minmax"
    per: str = "dim"
    symmetric: bool = False
    signed: bool = False
    steps: int | None = None
    tail: float = 0.001

    def __post_init__(self) -> None:
        who = "ScalarQuantizer"
        object.__setattr__(self, "bits", whole(who, "bits", self.bits, 1, 8))
        if self.steps is not None:
            object.__setattr__(self, "steps", whole(who, "steps", self.steps, 1, 1 << self.bits))
        if self.per not in ("dim", "tensor"):
            raise GpuzipError(f"{who}: per must be 'dim' or 'tensor'; got {self.per!r}.")
        if not (isinstance(self.tail, float | int) and 0 <= self.tail < 0.5):
            raise GpuzipError(f"{who}: tail must be a share from 0 to below 0.5; got {self.tail!r}.")
        if isinstance(self.range, str):
            if self.range not in RANGES and not (self.range == _GIVEN and self.is_fitted):
                raise GpuzipError(
                    f"{who}: range must be one of {', '.join(RANGES)} or (low, high); got {self.range!r}."
                )
        else:
            check_given(who, self.range)
        super().__post_init__()

    @property
    def code_size(self) -> int:
        return code_bytes(self.width, self.bits)

    @property
    def centroids(self) -> Tensor:
        """(d, 2**bits, 1) float32: the value of each code, per dimension."""
        fitted = self.learned("centroids")
        return self._codebook().expand(fitted.d, -1, -1).contiguous()

    def _codebook(self) -> Tensor:
        """(C, 2**bits, 1) float32: the value of each code; C is 1 if all dimensions share a range."""
        codes = torch.arange(1 << self.bits, device=self.device)
        if self.signed:
            codes = codes ^ (1 << (self.bits - 1))
        return self._levels(codes[:, None].float()).T[:, :, None].contiguous()

    def _as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        codebook = self._codebook()
        return LookupTable(codebook, self.width // len(codebook)), data

    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> ScalarQuantizer:
        """Find the range: in all rows for "minmax", in a sample of 16,384 for "quantile" and "mse".

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 2, unless a range is given.
        seed : int, default 0
            Seed of the sample of rows and of the rotation.
        progress : bool or callable, optional
            As in `Codec.fit`.

        Returns
        -------
        ScalarQuantizer
            A fitted copy.

        Raises
        ------
        GpuzipError
            If x has fewer than 2 rows and no range is given.
        """
        return self._fit_rows(x, seed, progress)

    def _learn(self, rows: Rows, seed: int) -> ScalarQuantizer:
        rows, rotation = self.rotated(rows, seed)
        low, high = find_range(rows.who, rows, self.range, self.per, self.bits, self.tail, seed)
        if self.symmetric:
            high = torch.maximum(low.abs(), high.abs())
            low = -high
        step = (high - low) / torch.full_like(low, self._steps)  # a GPU rounds x / number differently
        constant = step == 0
        step = torch.where(constant, 2.0**-60 if self.symmetric else 1.0, step)
        start = torch.where(constant, low - 0.5, low)
        if self.symmetric:  # 0 becomes code 2**(bits - 1), as in two's complement
            start = -step * (self._steps / 2 + ((1 << self.bits) - self._steps + 1) // 2)
        return replace(self, fitted=Steps(start, step, rows.d), rotation=rotation)

    @property
    def _steps(self) -> int:
        """Steps per range. If symmetric they are odd by default, so that 0 is the middle of a step."""
        return self.steps or (max(2, (1 << self.bits) - 1) if self.symmetric else 1 << self.bits)

    def _encode(self, x: Tensor) -> Tensor:
        fitted = self.learned("encode")
        packed = pack_bits(scalar_encode(x, fitted.start, fitted.step, (1 << self.bits) - 1), self.bits)
        return packed ^ self._flip if self.signed else packed

    def _encode_once(self, x: Tensor, out: Tensor) -> bool:
        if self.bits < 8:
            return super()._encode_once(x, out)
        fitted, flip = self.learned("encode"), 128 * self.signed
        return scalar_bytes(x, fitted.start, fitted.step, 255, flip, out) < SOUND_SQUARES

    def _decode(self, data: Tensor) -> Tensor:
        if self.bits in (4, 8) and not is_gpu(data.device):
            fitted = self.learned("decode")
            start, step = (values.expand(fitted.d) for values in (fitted.start, fitted.step))
            return scalar_decode(data, start, step, self.bits, self._byte_flip)
        if self.signed:
            data = data ^ self._flip
        return self._levels(unpack_bits(data, self.width, self.bits).float())

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        fitted = self.learned("decode")
        start, step = (values.expand(fitted.d) for values in (fitted.start, fitted.step))
        flip = self._byte_flip if self.bits in (4, 8) else self.signed << (self.bits - 1)
        return step_reader(data, start, step, self.bits, flip) if isinstance(data, Tensor) else None

    @property
    def _byte_flip(self) -> int:
        """What a byte of codes of 4 or 8 bits is xored with."""
        return (0x88 if self.bits == 4 else 0x80) if self.signed else 0

    def _levels(self, codes: Tensor) -> Tensor:
        """Values of (n, C or 1) float32 codes, which are overwritten."""
        fitted = self.learned("decode")
        codes = codes.add_(0.5)
        return (codes * fitted.step).add_(fitted.start)

    @property
    def _flip(self) -> Tensor:
        """(1, B) uint8 with the highest bit of every code; xor makes signed codes unsigned."""
        highest = torch.full((1, self.width), 1 << (self.bits - 1), dtype=torch.uint8, device=self.device)
        return pack_bits(highest, self.bits)

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        by_nibble = self.bits == 4 and reads_nibbles(queries.device)
        are_many = len(packed) >= FEWEST_ROWS[kind(queries.device)]
        may_estimate = self.bits in (4, 8) and not by_nibble and are_many
        if not may_estimate or is_capturing(queries.device):
            centroids = packed.remembered("centroids", lambda: self.centroids)
            return pq_scorer(
                packed, centroids, queries, metric, mask, packed.remembered("layout", self._layout)
            )
        return ScalarScorer(packed, packed.remembered("coding", self._coding), queries, metric, mask)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | None:
        if self.bits == 8 and len(packed) >= FEWEST_ROWS["cpu"]:
            return prepared_scalar(packed, packed.remembered("coding", self._coding), metric)
        if self.bits == 4 and not reads_nibbles(self.device):
            return None
        centroids = packed.remembered("centroids", lambda: self.centroids)
        return prepared_tables(packed, centroids, metric, packed.remembered("layout", self._layout))

    def _layout(self) -> MixedLayout:
        fitted = self.learned("layout")
        codes = torch.arange(1 << self.bits, device=self.device)
        codes = codes ^ (1 << (self.bits - 1)) if self.signed else codes
        step, start = (values.expand(fitted.d).contiguous() for values in (fitted.step, fitted.start))
        return MixedLayout({self.bits: fitted.d}, codes.float().add_(0.5), step, start)

    def _coding(self) -> Coding:
        fitted = self.learned("scorer")
        steps = fitted.start.expand(fitted.d), fitted.step.expand(fitted.d)
        centroids = None if self.bits == 8 else self.centroids
        return coding_of(self.bits, *steps, centroids, self._flip if self.signed else None)

    @property
    def scorer_bytes(self) -> int:
        return 3 * 4 * 256 * self.width

    @property
    def first_scorer_bytes(self) -> int:
        return scorer_bytes_without_tables(self.width, self.code_size, self.scorer_bytes)

    def _config(self) -> dict[str, Any]:
        given = {} if isinstance(self.range, str) else {"range": _GIVEN}
        return {name: getattr(self, name) for name in _SETTINGS} | given | {"d": self.width}

    def _state(self) -> dict[str, Tensor]:
        fitted = self.learned("state")
        return {"start": fitted.start, "step": fitted.step}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> ScalarQuantizer:
        check_names(cls.id, config, set(_SETTINGS) | {"d"}, state, {"start", "step"})
        start, step, d = state["start"], state["step"], config["d"]
        plausible = (
            is_whole(d)
            and start.dtype == step.dtype == torch.float32
            and start.shape == step.shape
            and start.shape in ((1,), (d,))
            and bool((step > 0).all())
            and bool((start.abs() + 256 * step < 2 * LARGEST_NORM).all())
            and isinstance(config["symmetric"], bool)
            and isinstance(config["signed"], bool)
        )
        if not plausible:
            raise FormatError(
                f"scalar: start and step must be (1,) or (d,) float32 with d={d!r}, steps above 0; got "
                f"{tuple(start.shape)} {start.dtype} and {tuple(step.shape)} {step.dtype}."
            )
        return cls(**{name: config[name] for name in _SETTINGS}, fitted=Steps(start, step, d))


_SETTINGS = ("bits", "range", "per", "symmetric", "signed", "steps", "tail")
