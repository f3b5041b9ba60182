"""What a codec must answer: rows to bytes and back, a way to score bytes, and its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

import torch
from torch import Tensor

from gpuzip._core.checks import METRICS
from gpuzip._core.quality import HeldOut, Quality
from gpuzip._core.rows import BLOCK_BYTES, Matrix, Rows
from gpuzip.codecs.drift import Drift, drift_of
from gpuzip.codecs.spec import Words, spec_of
from gpuzip.errors import FormatError, GpuzipError, NotFittedError
from gpuzip.rotations import KINDS, Rotation
from gpuzip.search.packed import Packed, Searched
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.common import GATHER_COST
from gpuzip.search.scorers.decoded import decoded_scorer
from gpuzip.search.scorers.projected import of_projected

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar
else:
    from typing import TypeVar

_ROTATION, _HELD_OUT = "rotation", "held_out"


class Learned:
    """What `fit` learns: a dataclass with `d`, the number of columns that are coded."""

    if TYPE_CHECKING:

        @property
        def d(self) -> int: ...


if TYPE_CHECKING:
    Fitted = TypeVar("Fitted", bound=Learned, covariant=True, default=Any)
else:
    Fitted = TypeVar("Fitted", covariant=True)  # before 3.13 `typing` has no defaults


def check_names(
    id: str, config: dict[str, Any], settings: set[str], state: dict[str, Tensor], tensors: set[str]
) -> None:
    """Raises FormatError unless a file's settings and tensors have these names."""
    if set(config) != settings or set(state) != tensors:
        raise FormatError(
            f"{id}: settings {sorted(config)} with tensors {sorted(state)} are not those of a {id}."
        )


@dataclass(frozen=True, eq=False)
class LookupTable:
    """What codes are looked up in. codebook: (C, K, S), for M = C * share sub-spaces of 2**nbits = K codes.

    Sub-space m has codebook[m // share]. A row is its sub-vectors side by side, up to its column d.
    """

    codebook: Tensor
    share: int


class Rotated(NamedTuple):
    """Rows to fit on, and the rotation that they went through."""

    rows: Rows
    rotation: Rotation | None


@dataclass(frozen=True, eq=False)
class Codec(ABC, Generic[Fitted]):
    """The contract of codecs, which derive from `Quantizer`.

    A codec is frozen; `fit` returns a fitted copy and changes nothing.

    id: the codec's name in files; never renamed, never reused.
    rotation: what rows go through before they are coded, a `Rotation` or its kind; decoded rows come back.
    held_out: what was measured of it on rows that it was not fitted on, or None; files keep it.
    file_quality: of the rows of the file that it was read from, or None.

    A subclass implements `fit` and the names that begin with an underscore. `fit` reads its rows through
    `rotated`; all that the others see is rotated rows of `width` columns.
    """

    id: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = METRICS  # that a scorer knows
    gather_cost: ClassVar[int] = GATHER_COST  # of a scorer, the most there is
    score_bytes: ClassVar[int] = 4  # of memory for each score of a scorer's `group_max`, while it runs
    scores_are_of_decoded_rows: ClassVar[bool] = True  # else estimates of the source's, of their own
    coarse_kinds: ClassVar[Mapping[str, bool]] = {}  # accepted by `coarse`; True if scores are upper bounds
    spec_words: ClassVar[Words] = {}  # of `spec`

    fitted: Fitted | None = field(default=None, kw_only=True, repr=False)
    rotation: Rotation | str | None = field(default=None, kw_only=True)
    held_out: HeldOut | None = field(default=None, init=False, repr=False)
    file_quality: Quality | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.rotation, str):
            object.__setattr__(self, "rotation", Rotation(self.rotation))
        elif not isinstance(self.rotation, Rotation | None):
            raise GpuzipError(
                f"{type(self).__name__}: rotation must be a Rotation, None or one of "
                f"{', '.join(KINDS)}; got {self.rotation!r}."
            )

    def __repr__(self) -> str:
        """As it is made; a rotation last, where one is or could have been by default."""
        shown = {f.name: f for f in fields(self) if f.repr}
        rotation = shown.pop(_ROTATION)
        if self.rotation is not None or rotation.default is not None:
            shown[_ROTATION] = rotation
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def is_fitted(self) -> bool:
        """Whether the codec can encode."""
        return self.fitted is not None

    def learned(self, name: str) -> Fitted:
        """What `fit` learned, for the attribute `name`. Raises NotFittedError without it."""
        self.check_fitted(f"{type(self).__name__}.{name}")
        assert self.fitted is not None
        return self.fitted

    @property
    def width(self) -> int:
        """Columns of the rows that are coded: d, or what a rotation leaves of them."""
        return self.learned("d").d

    @property
    @abstractmethod
    def code_size(self) -> int:
        """Bytes a row (FAISS's name)."""

    @property
    def plane_sizes(self) -> tuple[int, ...]:
        """Bytes a row of the parts that codes are kept in, so that some are scanned without the others."""
        return (self.code_size,)

    @abstractmethod
    def fit(self, x: Matrix, *, seed: int = 0) -> Self:
        """A fitted codec of the same settings."""

    def fit_quietly(self, x: Matrix, *, seed: int = 0) -> Self:
        """`fit` without a warning that x has few rows.

        For callers that encode the same rows, or that measure what few rows do.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on.
        seed : int, default 0
            Seed of all random draws.

        Returns
        -------
        Codec
            A fitted copy.
        """
        return self.fit(x, seed=seed)

    def fit_like(self, other: Codec) -> Self | None:
        """What `fit` gives on the rows and with the seed of `other`, where that tells it; None where not."""
        return None

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """(n, width) float32, float16 or bfloat16 -> (n, code_size) uint8."""

    @abstractmethod
    def _decode(self, data: Tensor) -> Tensor:
        """(n, code_size) uint8 -> (n, width) float32."""

    def _decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        """The rows of ids alone: (N, code_size) uint8, (R,) int64 within [0, N) -> (R, width) float32."""
        return self._decode(data[ids])

    def _as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        raise GpuzipError(
            f"{type(self).__name__}: its codes are not looked up in a table. Use a LloydMaxQuantizer, "
            "ScalarQuantizer, BinaryQuantizer or ProductQuantizer."
        )

    def _norms(self, data: Tensor) -> Tensor:
        """(N,) float32 L2 norms of decoded rows."""
        norms = torch.empty(len(data), device=data.device)
        step = max(1, BLOCK_BYTES // (4 * self.width))
        for start in range(0, len(data), step):
            part = slice(start, start + step)
            norms[part] = torch.linalg.vector_norm(self._decode(data[part]), dim=1)
        return norms

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        """Scores of every row for (Q, width) float32 queries; those of decoded rows unless overridden."""
        return decoded_scorer(packed, self._decode, queries, metric, mask)

    def coarse(self, packed: Packed, kind: str) -> Searched:
        """The same rows with less to read, from which a search takes candidates. kind: of `coarse_kinds`."""
        raise AssertionError(f"{kind} is none of {list(self.coarse_kinds)}")

    @property
    def scorer_bytes(self) -> int:
        """Workspace that a scorer keeps for one query."""
        return 8 * self.width

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """Settings as JSON; with `_state` it is all there is to a codec but its rotation."""

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """Fitted tensors, as they are stored."""

    @classmethod
    @abstractmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """The codec that gave this config and state. Raises FormatError when they don't fit together."""

    def rotated(self, x: Matrix | Rows, seed: int, m: int | None = None, K: int = 256) -> Rotated:
        """Rows to fit on, rotated, and the fitted rotation. m, K: sub-spaces and centroids it is to serve."""
        rows = x if isinstance(x, Rows) else Rows(f"{type(self).__name__}.fit", x)
        if self._rotation is None:
            return Rotated(rows, None)
        rotation = self._rotation.fit_rows(rows, seed, m, K)
        return Rotated(rows.rotated(rotation.apply, rotation.width), rotation)

    def _width_of(self, rows: Rows) -> int:
        """Columns that the rotation will leave of rows."""
        return rows.d if self._rotation is None else self._rotation.kept(rows.d)

    @property
    def _rotation(self) -> Rotation | None:
        """The rotation, which is fitted where the codec is."""
        assert not isinstance(self.rotation, str)
        return self.rotation

    @property
    def d(self) -> int:
        """Columns of the rows it was fitted on."""
        width = self.width  # raises for a codec that is not fitted
        return width if self._rotation is None else self._rotation.d

    def encode_block(self, x: Tensor) -> Tensor:
        """(n, d) float32, float16 or bfloat16 -> (n, code_size) uint8."""
        return self._encode(x if self._rotation is None else self._rotation.apply(x))

    def decode_block(self, data: Tensor) -> Tensor:
        """(n, code_size) uint8 -> (n, d) float32."""
        return self._rotated_back(self._decode(data))

    def decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        """The rows of ids alone: (N, code_size) uint8, (R,) int64 within [0, N) -> (R, d) float32."""
        return self._rotated_back(self._decode_rows(data, ids))

    def _rotated_back(self, rows: Tensor) -> Tensor:
        return rows if self._rotation is None else self._rotation.reverse_transform(rows)

    def as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        """The look-up that decoding is, and the codes (N, B) to look up, packed as `ops.pack_bits` does.

        Raises GpuzipError for codecs that are none.
        """
        self.check_unrotated(f"{type(self).__name__}.as_table")
        return self._as_table(data)

    def norms(self, data: Tensor) -> Tensor:
        """(N,) float32 L2 norms of decoded rows."""
        return self._norms(data)  # a rotation changes none

    def scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None = None) -> Scorer:
        """Scores of every row for (Q, d) float32 queries; see gpuzip.search.scorer.

        mask: (N,) bool or None; the score of a row where it is False is -inf.
        """
        if self._rotation is None or queries.dtype == torch.uint8:  # codes already
            return self._scorer(packed, queries, metric, mask)
        rotated = (
            self._rotation.apply(queries) if metric == "hamming" else self._rotation.rotate_queries(queries)
        )
        scorer = self._scorer(packed, rotated, metric, mask)
        return scorer if self.width == self.d else of_projected(scorer, queries, rotated, metric)

    def config(self) -> dict[str, Any]:
        """Settings as JSON; with `state` it is all there is to a codec."""
        config = self._config()
        if self._rotation is not None:
            config[_ROTATION] = self._rotation.config()
        return config if self.held_out is None else config | {_HELD_OUT: self.held_out.to_json()}

    def state(self) -> dict[str, Tensor]:
        """Fitted tensors, as they are stored."""
        of_rotation = {} if self._rotation is None else self._rotation.state()
        return self._state() | {f"{_ROTATION}.{name}": tensor for name, tensor in of_rotation.items()}

    @classmethod
    def restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """The codec that gave this config and state. Raises FormatError when they don't fit together."""
        own = {name: tensor for name, tensor in state.items() if not name.startswith(f"{_ROTATION}.")}
        try:
            codec = cls._restore({n: v for n, v in config.items() if n not in (_ROTATION, _HELD_OUT)}, own)
        except FormatError:
            raise
        except (GpuzipError, TypeError) as error:
            raise FormatError(f"{cls.id}: its settings are not those of a {cls.__name__}: {error}") from error
        held_out = HeldOut.of_json(config[_HELD_OUT]) if _HELD_OUT in config else None
        of_rotation = {n.removeprefix(f"{_ROTATION}."): t for n, t in state.items() if n not in own}
        if _ROTATION not in config:
            if of_rotation:
                raise FormatError(
                    f"{cls.id}: tensors {sorted(of_rotation)} come without settings of a rotation."
                )
            return replace(codec, rotation=None).stamped(held_out)
        rotation = Rotation.restore(config[_ROTATION], of_rotation, codec.device)
        if rotation.width != codec.width:
            raise FormatError(f"{cls.id}: {codec.width} columns, its rotation gives {rotation.width}.")
        return replace(codec, rotation=rotation).stamped(held_out)

    def stamped(self, held_out: HeldOut | None, file_quality: Quality | None = None) -> Self:
        """This codec with what was measured of it; `fit` gives one without."""
        codec = copy(self)
        object.__setattr__(codec, "held_out", held_out)
        object.__setattr__(codec, "file_quality", file_quality)
        return codec

    @property
    def nbytes(self) -> int:
        """Bytes of the state as stored."""
        return sum(t.nbytes for t in self.state().values())

    @property
    def device(self) -> torch.device:
        return next(iter(self.state().values())).device

    def to(self, device: torch.device | str) -> Self:
        """Copy the codec to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to move the state.

        Returns
        -------
        Codec
            The codec on that device.
        """
        moved = self.restore(self.config(), {name: t.to(device) for name, t in self.state().items()})
        return moved.stamped(self.held_out, self.file_quality)

    def same_as(self, other: Codec) -> bool:
        """Whether both make the same codes: the same settings and the same state."""
        if self is other or not (self.is_fitted and other.is_fitted):
            return self is other
        mine, theirs = self.state(), other.state()
        return (
            type(self) is type(other)
            and self.stamped(None).config() == other.stamped(None).config()
            and all(torch.equal(mine[name], theirs[name].to(mine[name].device)) for name in mine)
        )

    def check_fitted(self, who: str) -> None:
        """Raise NotFittedError, in the name of the caller `who`, unless the codec is fitted."""
        if not self.is_fitted:
            raise NotFittedError(
                f"{who}: this {type(self).__name__} is not fitted. Call .fit(x) and use what it returns."
            )

    def check_unrotated(self, who: str) -> None:
        """Raise GpuzipError, in the name of the caller `who`, if the codec has a rotation."""
        if self._rotation is not None:
            raise GpuzipError(
                f"{who}: this {type(self).__name__} rotates rows, so that its codes stand for no values of "
                "theirs. Use one without rotation."
            )

    @property
    def spec(self) -> str:
        """The settings as text that `gpuzip.from_spec` reads, such as "OPQ48,PQ48x8". Raises GpuzipError."""
        return spec_of(self)

    def drift(self, new_x: Matrix, x: Matrix | None = None) -> Drift:
        """Test whether new rows lose more than those that this codec was measured on.

        Parameters
        ----------
        new_x : (n, D) float tensor, array or memory map
            New rows, 10 or more, on the codec's device.
        x : (N, D) float tensor, array or memory map, optional
            Rows to compare with, best some that the codec was not fitted on. Not needed for a codec that
            `gpuzip.compress` chose for an outcome (`held_out`), or one from a file that was saved with its
            rows (`file_quality`).

        Returns
        -------
        Drift
            print() of it says what to do.

        Raises
        ------
        GpuzipError
            If nothing is known of the earlier loss.
        """
        return drift_of(self, new_x, x)

    @abstractmethod
    def encode(self, x: Matrix, *, progress: Callable[[int, int], None] | None = None) -> Any:
        """`Codes` of rows; `Quantizer` implements it."""
