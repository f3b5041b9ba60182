"""The contract of codecs: rows to bytes and back, scores of the bytes, and the codec's state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import METRICS, SearchMetric, whole
from gpuzip._core.device import as_device
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.quality import HeldOut, Quality
from gpuzip._core.rows import BLOCK_BYTES, LARGEST_NORM, Matrix, Rows, are_sound
from gpuzip.codecs.drift import Drift, drift_of
from gpuzip.codecs.spec import Words, spec_of
from gpuzip.errors import FormatError, GpuzipError, NotFittedError
from gpuzip.ops.row_reader import RowReader
from gpuzip.rotations import KINDS, Rotation
from gpuzip.search.packed import Packed, Searched
from gpuzip.search.prepared import OfCodesOrFloats, Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.common import GATHER_COST
from gpuzip.search.scorers.decoded import decoded_scorer
from gpuzip.search.scorers.projected import of_projected

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar
else:
    from typing import TypeVar

_ROTATION, _HELD_OUT = "rotation", "held_out"
_WIDE = 1 << 15  # bytes a row, of which a table of 256 entries of 8 floats each takes 256 MB


class Learned:
    """What `fit` learns: a dataclass with `d`, the number of columns that are coded."""

    if TYPE_CHECKING:

        @property
        def d(self) -> int: ...


if TYPE_CHECKING:
    Fitted = TypeVar("Fitted", bound=Learned, covariant=True, default=Any)
else:
    Fitted = TypeVar("Fitted", covariant=True)  # before Python 3.13, `typing` has no defaults


def check_names(
    id: str,
    config: dict[str, Any],
    settings: set[str],
    state: dict[str, Tensor],
    tensors: set[str],
    *,
    unbounded: str = "",
) -> None:
    """Raise FormatError unless a file's settings and tensors have these names.

    Squares of the tensors' values must fit in float32, except those of the tensor `unbounded`.
    """
    if set(config) != settings or set(state) != tensors:
        raise FormatError(
            f"{id}: settings must be {sorted(settings)} with tensors {sorted(tensors)}; got "
            f"{sorted(config)} with {sorted(state)}."
        )
    for name, tensor in state.items():
        known = name != unbounded and tensor.device.type != "meta"
        if known and not bool((tensor.float().abs() <= 2 * LARGEST_NORM).all()):
            raise FormatError(f"{id}: squares of the values of {name} must fit in float32. Restore the file.")


@dataclass(frozen=True, eq=False)
class LookupTable:
    """The table that codes are indices into.

    Attributes
    ----------
    codebook : (C, K, S) float32 tensor
        K = 2**nbits entries of S values each, for M = C * share sub-spaces.
    share : int
        Number of neighbouring sub-spaces per codebook: sub-space m uses codebook[m // share].

    Notes
    -----
    A decoded row is its M sub-vectors side by side, cut off after d columns.
    """

    codebook: Tensor
    share: int


def _owner(codec: object, name: str) -> type:
    """Return the class whose method a codec has."""
    return next(kind for kind in type(codec).__mro__ if name in vars(kind))


class Rotated(NamedTuple):
    """Rotated rows to fit on, and the fitted rotation (None if the codec has none)."""

    rows: Rows
    rotation: Rotation | None


@dataclass(frozen=True, eq=False)
class Codec(ABC, Generic[Fitted]):
    """Define what every codec does. Codecs derive from `Quantizer`, which adds `encode`.

    A codec is frozen: `fit` returns a fitted copy and changes nothing.

    Parameters
    ----------
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Attributes
    ----------
    id : str
        Name of the codec in files. It is never renamed and never reused.
    held_out : HeldOut or None
        Quality on rows that the codec was not fitted on, where that was measured. Files keep it.
    file_quality : Quality or None
        Quality of the file that the codec was read from.
    metrics : tuple of str
        Metrics that its scorer accepts.
    scores_are_of_decoded_rows : bool
        Whether scores are those of the decoded rows. Otherwise they estimate the scores of the source rows.
    plain_torch_scores_alike : bool
        Whether `_scorer` gives the same bits with numba's loops and without, so that a first search need not
        wait until loops are compiled. A subclass with a scorer of its own says whether that does.
    coarse_kinds : mapping of str to bool
        Kinds accepted by `coarse`; True if their scores are upper bounds.
    gather_cost, score_bytes, scorer_bytes : int
        Cost of a single score in table look-ups; bytes per score of a scan; bytes per query of a scorer.
        A search divides its memory by them.
    spec_words : mapping
        Words of `spec`; see gpuzip.codecs.spec.
    encodes_once : bool
        Whether `_encode_once` checks rows while it encodes them.
    decodes_at_once : bool
        Whether `_decode` takes little memory beside its result, so that all rows may be decoded in one call.

    Notes
    -----
    A subclass implements `fit`, `code_size` and the abstract methods that begin with an underscore. `fit`
    reads its rows through `rotated`, and keeps what it learns in `fitted`. The underscored methods see
    rotated rows of `width` columns.
    """

    id: ClassVar[str]
    metrics: ClassVar[tuple[SearchMetric, ...]] = METRICS
    gather_cost: ClassVar[int] = GATHER_COST
    score_bytes: ClassVar[int] = 4
    scores_are_of_decoded_rows: ClassVar[bool] = True
    plain_torch_scores_alike: ClassVar[bool] = False
    coarse_kinds: ClassVar[Mapping[str, bool]] = {}
    spec_words: ClassVar[Words] = {}
    encodes_once: ClassVar[bool] = False
    decodes_at_once: ClassVar[bool] = False

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
        """The call that makes the codec. The rotation is shown unless it is None by default."""
        shown = {f.name: f for f in fields(self) if f.repr}
        rotation = shown.pop(_ROTATION)
        if self.rotation is not None or rotation.default is not None:
            shown[_ROTATION] = rotation
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` made this codec, so that it can encode."""
        return self.fitted is not None

    def learned(self, name: str) -> Fitted:
        """Return what `fit` learned.

        Parameters
        ----------
        name : str
            Attribute or method that needs it, for the error text.

        Returns
        -------
        object
            `fitted`.

        Raises
        ------
        NotFittedError
            If the codec is not fitted.
        """
        self.check_fitted(f"{type(self).__name__}.{name}")
        assert self.fitted is not None
        return self.fitted

    @property
    def width(self) -> int:
        """Number of columns that are coded: d, or what the rotation keeps."""
        return self.learned("d").d

    @property
    def d(self) -> int:
        """Number of columns of the rows that the codec was fitted on."""
        width = self.width  # raises for a codec that is not fitted
        return width if self._rotation is None else self._rotation.d

    @property
    @abstractmethod
    def code_size(self) -> int:
        """Bytes per row (FAISS's name)."""

    @property
    def plane_sizes(self) -> tuple[int, ...]:
        """Bytes per row of each plane of the codes. A scan can read one plane without the others."""
        return (self.code_size,)

    @property
    def _rotation(self) -> Rotation | None:
        """`rotation` without the str that `__post_init__` replaces; fitted if the codec is."""
        assert not isinstance(self.rotation, str)
        return self.rotation

    @abstractmethod
    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> Self:
        """Fit the codec to rows.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on.
        seed : int, default 0
            Seed of all random draws.
        progress : bool or callable, optional
            True shows a bar. A function is called with what is done and what there is: rows read, or rounds
            of training.

        Returns
        -------
        Codec
            A fitted copy.
        """

    def _fit_rows(self, x: Matrix, seed: int, progress: Progress) -> Self:
        """Check the arguments of `fit`, and learn from the rows while they are reported."""
        who = f"{type(self).__name__}.fit"
        rows, seed = Rows(who, x), whole(who, "seed", seed, 0)
        with reporting(who, progress, "fit", rows.n) as report:
            fitted = self._learn(rows.reported(report), seed)
            report(rows.n)
        return fitted

    def _learn(self, rows: Rows, seed: int) -> Self:
        """The fitted copy, for codecs whose `fit` calls `_fit_rows`."""
        raise NotImplementedError

    def fit_quietly(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> Self:
        """Fit without a warning that x has few rows.

        For callers that encode the same rows, or that measure the result.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on.
        seed : int, default 0
            Seed of all random draws.
        progress : bool or callable, optional
            As in `fit`.

        Returns
        -------
        Codec
            A fitted copy.
        """
        if progress is None or "progress" not in signature(self.fit).parameters:  # one of another package
            return self.fit(x, seed=seed)
        return self.fit(x, seed=seed, progress=progress)

    def fit_like(self, other: Codec) -> Self | None:
        """Return what `fit` would give on the rows and with the seed of another codec, without those rows.

        Parameters
        ----------
        other : Codec
            A fitted codec.

        Returns
        -------
        Codec or None
            A fitted copy, or None if `fit` is needed.
        """
        return None

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """(n, width) float32, float16 or bfloat16 -> (n, code_size) uint8."""

    def _encode_once(self, x: Tensor, out: Tensor) -> bool:
        """Write what `_encode` returns to out, and return whether the rows are surely sound.

        On a CPU, for codecs with `encodes_once`; x (n, width) as it came, unchecked.
        """
        out[:] = self._encode(x)
        return are_sound(x)

    @abstractmethod
    def _decode(self, data: Tensor) -> Tensor:
        """(n, code_size) uint8 -> (n, width) float32."""

    def _decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        """Rows by id: (N, code_size) uint8, (R,) int64 within [0, N) -> (R, width) float32."""
        return self._decode(data[ids])

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        """`_decode_rows` by loops for these codes, or None where there are none."""
        return None

    def _as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        raise GpuzipError(
            f"{type(self).__name__}.as_table: the codec must decode by a look-up table; this one does not. "
            "Use a LloydMaxQuantizer, ScalarQuantizer, BinaryQuantizer or ProductQuantizer."
        )

    def _norms(self, data: Tensor) -> Tensor:
        """(N,) float32 L2 norms of decoded rows."""
        norms = torch.empty(len(data), device=data.device, dtype=torch.float32)
        step = max(1, BLOCK_BYTES // (4 * self.width))
        for start in range(0, len(data), step):
            part = slice(start, start + step)
            norms[part] = torch.linalg.vector_norm(self._decode(data[part]), dim=1)
        return norms

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        """Scores of every row for (Q, width) float32 queries. By default, rows are decoded."""
        return decoded_scorer(packed, self._decode, queries, metric, mask)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | OfCodesOrFloats | None:
        """A search of few (Q, width) queries on a CPU; by default none, as that by `_scorer` is as fast."""
        return None

    def prepared(self, packed: Packed, metric: str) -> Prepared | OfCodesOrFloats | None:
        """Return a search of few queries on a CPU that keeps what it needs of the codes.

        Parameters
        ----------
        packed : Packed
            The codes, verified.
        metric : str
            One of `metrics`.

        Returns
        -------
        Prepared, OfCodesOrFloats or None
            None if a search by `scorer` is as fast.
        """
        if self._is_wide or self.width != self.d:
            return None
        found = self._prepared(packed, metric)
        if found is None or not found.takes(self.d):  # columns may be padded
            return None
        if self._rotation is None or self._rotation.fitted is None:
            return found
        return found.after(self._rotated_few if metric == "hamming" else self._rotation.fitted.few)

    def _rotated_few(self, queries: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Few queries, rotated as rows are."""
        assert self._rotation is not None
        rotated: np.ndarray[Any, Any] = self._rotation.apply(torch.from_numpy(queries)).numpy()
        return rotated

    def coarse(self, packed: Packed, kind: str) -> Searched:
        """Return smaller codes of the same rows, from which a search takes candidates.

        Parameters
        ----------
        packed : Packed
            The codes.
        kind : str
            One of `coarse_kinds`.

        Returns
        -------
        Searched
            The smaller codes and the codec that scores them.
        """
        raise AssertionError(f"kind must be one of {list(self.coarse_kinds)}; got {kind!r}")

    @property
    def scorer_bytes(self) -> int:
        """Bytes that a scorer keeps per query."""
        return 8 * self.width

    @property
    def first_scorer_bytes(self) -> int:
        """The same in the first stage of a search on a CPU."""
        return self.scorer_bytes

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """Settings as JSON. With `_state` they restore the codec without its rotation."""

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """Fitted tensors, as files store them."""

    @classmethod
    @abstractmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """Make the codec of this config and state. Raises FormatError if they do not fit together."""

    def rotated(self, x: Matrix | Rows, seed: int, m: int | None = None, K: int = 256) -> Rotated:
        """Fit the rotation and return the rotated rows, for `fit`.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map, or Rows
            Rows to fit on. A matrix is checked first.
        seed : int
            Seed of the rotation.
        m : int, optional
            Number of sub-spaces of the codec.
        K : int, default 256
            Number of centroids per sub-space.

        Returns
        -------
        rows : Rows
            The rotated rows.
        rotation : Rotation or None
            The fitted rotation, to be kept by the fitted codec.
        """
        rows = x if isinstance(x, Rows) else Rows(f"{type(self).__name__}.fit", x)
        if self._rotation is None:
            return Rotated(rows, None)
        rotation = self._rotation.fit_rows(rows, seed, m, K)
        return Rotated(rows.rotated(rotation.apply, rotation.width), rotation)

    def _width_of(self, rows: Rows) -> int:
        """Number of columns that the rotation will keep of rows."""
        return rows.d if self._rotation is None else self._rotation.kept(rows.d)

    def encode_block(self, x: Tensor) -> Tensor:
        """Encode rows at once, without checks.

        Parameters
        ----------
        x : (n, d) float32, float16 or bfloat16 tensor
            Finite rows on the codec's device.

        Returns
        -------
        (n, code_size) uint8 tensor
            Their codes.
        """
        return self._encode(x if self._rotation is None else self._rotation.apply(x))

    def decode_block(self, data: Tensor) -> Tensor:
        """Decode codes at once, without checks.

        Parameters
        ----------
        data : (n, code_size) uint8 tensor
            Codes on the codec's device.

        Returns
        -------
        (n, d) float32 tensor
            The decoded rows.
        """
        return self._rotated_back(self._decode(data))

    def decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        """Decode some rows, without checks.

        Parameters
        ----------
        data : (N, code_size) uint8 tensor
            All codes.
        ids : (R,) int64 tensor
            Rows to decode, within [0, N).

        Returns
        -------
        (R, d) float32 tensor
            The decoded rows.
        """
        return self._rotated_back(self._decode_rows(data, ids))

    def row_reader(self, data: Tensor | Planes) -> Callable[[Tensor], Tensor | None] | None:
        """Return what decodes some of these codes in few steps, and keeps what it needs of them.

        Parameters
        ----------
        data : (N, code_size) uint8 tensor or Planes
            All codes, which stay where they are.

        Returns
        -------
        callable or None
            Takes (R,) int64 ids, none checked, and returns (R, d) float32 rows, or None where `decode_rows`
            is needed. None if it always is.
        """
        reads = _owner(self, "_row_reader")
        if not all(issubclass(reads, _owner(self, name)) for name in ("_decode", "_decode_rows")):
            return None  # a subclass decodes otherwise
        read = self._row_reader(data)
        if read is None or self._rotation is None:
            return read
        reverse = self._rotation.reverse_transform

        def rotated(ids: Tensor) -> Tensor | None:
            rows = read(ids)
            return None if rows is None else reverse(rows)

        return rotated

    def _rotated_back(self, rows: Tensor) -> Tensor:
        return rows if self._rotation is None else self._rotation.reverse_transform(rows)

    def as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        """Express decoding as a look-up in a table.

        Parameters
        ----------
        data : (N, code_size) uint8 tensor
            The codes.

        Returns
        -------
        table : LookupTable
            The codebooks.
        codes : (N, B) uint8 tensor
            Indices into them, packed as `ops.pack_bits` does.

        Raises
        ------
        GpuzipError
            If the codec does not decode by a table, or has a rotation.
        """
        self.check_unrotated(f"{type(self).__name__}.as_table")
        return self._as_table(data)

    def norms(self, data: Tensor) -> Tensor:
        """Compute the norms of decoded rows.

        Parameters
        ----------
        data : (N, code_size) uint8 tensor
            The codes.

        Returns
        -------
        (N,) float32 tensor
            L2 norms.
        """
        find = Codec._norms if self._is_wide else type(self)._norms
        return find(self, data)  # a rotation keeps them

    def scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None = None) -> Scorer:
        """Return a scorer of every row for these queries; see gpuzip.search.scorer.

        Parameters
        ----------
        packed : Packed
            The codes.
        queries : (Q, d) float32 tensor
            Queries on the codes' device. For "hamming" also (Q, code_size) uint8.
        metric : str
            One of `metrics`.
        mask : (N,) bool tensor, optional
            False for rows that score -inf.

        Returns
        -------
        Scorer
            Scores of the N rows for the Q queries.
        """
        decodes = self._is_wide and self.scores_are_of_decoded_rows and metric in METRICS
        find = Codec._scorer if decodes else type(self)._scorer
        if self._rotation is None or queries.dtype == torch.uint8:  # queries that are codes are rotated
            return find(self, packed, queries, metric, mask)
        rotate = self._rotation.apply if metric == "hamming" else self._rotation.rotate_queries
        rotated = rotate(queries)
        scorer = find(self, packed, rotated, metric, mask)
        return scorer if self.width == self.d else of_projected(scorer, queries, rotated, metric)

    @property
    def searches_alike(self) -> bool:
        """Whether a search gives the same bits with numba's loops and without."""
        return self.plain_torch_scores_alike and not self._is_wide

    @property
    def _is_wide(self) -> bool:
        """Whether a table of what each byte of a row stands for would take more memory than many rows."""
        return self.code_size > _WIDE

    def config(self) -> dict[str, Any]:
        """Return the settings as JSON. With `state` they restore the codec."""
        config = self._config()
        if self._rotation is not None:
            config[_ROTATION] = self._rotation.config()
        return config if self.held_out is None else config | {_HELD_OUT: self.held_out.to_json()}

    def state(self) -> dict[str, Tensor]:
        """Return the fitted tensors by name, as files store them."""
        of_rotation = {} if self._rotation is None else self._rotation.state()
        return self._state() | {f"{_ROTATION}.{name}": tensor for name, tensor in of_rotation.items()}

    @classmethod
    def restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """Make the codec that gave this config and state.

        Parameters
        ----------
        config : dict
            What `config` returned.
        state : dict of str to tensor
            What `state` returned.

        Returns
        -------
        Codec
            The fitted codec, on the device of the tensors.

        Raises
        ------
        FormatError
            If they do not fit together.
        """
        own = {name: tensor for name, tensor in state.items() if not name.startswith(f"{_ROTATION}.")}
        try:
            codec = cls._restore({n: v for n, v in config.items() if n not in (_ROTATION, _HELD_OUT)}, own)
        except FormatError:
            raise
        except (GpuzipError, TypeError) as error:
            raise FormatError(f"{cls.id}: settings must be those of a {cls.__name__}: {error}") from error
        held_out = HeldOut.of_json(config[_HELD_OUT]) if _HELD_OUT in config else None
        of_rotation = {n.removeprefix(f"{_ROTATION}."): t for n, t in state.items() if n not in own}
        if _ROTATION not in config:
            if of_rotation:
                raise FormatError(
                    f"{cls.id}: rotation must have settings for {sorted(of_rotation)}; got none."
                )
            return replace(codec, rotation=None).stamped(held_out)
        rotation = Rotation.restore(config[_ROTATION], of_rotation, codec.device)
        if rotation.width != codec.width:
            raise FormatError(
                f"{cls.id}: the rotation must keep {codec.width} columns; it keeps {rotation.width}."
            )
        return replace(codec, rotation=rotation).stamped(held_out)

    def stamped(self, held_out: HeldOut | None, file_quality: Quality | None = None) -> Self:
        """Return a copy with measured quality. `fit` returns a codec without.

        Parameters
        ----------
        held_out : HeldOut or None
            Quality on rows that the codec was not fitted on.
        file_quality : Quality, optional
            Quality of the file that the codec was read from.

        Returns
        -------
        Codec
            The copy.
        """
        codec = copy(self)
        object.__setattr__(codec, "held_out", held_out)
        object.__setattr__(codec, "file_quality", file_quality)
        return codec

    @property
    def nbytes(self) -> int:
        """Bytes of the state, as files store it."""
        return sum(t.nbytes for t in self.state().values())

    @property
    def device(self) -> torch.device:
        """Device of the state."""
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
        device = as_device(f"{type(self).__name__}.to", device)
        moved = self.restore(self.config(), {name: t.to(device) for name, t in self.state().items()})
        return moved.stamped(self.held_out, self.file_quality)

    def same_as(self, other: Codec) -> bool:
        """Return whether both codecs make the same codes: their settings and states are equal.

        Parameters
        ----------
        other : Codec
            Codec to compare with, on any device.

        Returns
        -------
        bool
            For codecs that are not fitted, whether they are one object.
        """
        if self is other or not (self.is_fitted and other.is_fitted):
            return self is other
        mine, theirs = self.state(), other.state()
        return (
            type(self) is type(other)
            and self.stamped(None).config() == other.stamped(None).config()
            and all(torch.equal(mine[name], theirs[name].to(mine[name].device)) for name in mine)
        )

    def check_fitted(self, who: str) -> None:
        """Check that the codec is fitted.

        Parameters
        ----------
        who : str
            The caller, for the error text.

        Raises
        ------
        NotFittedError
            If it is not.
        """
        if not self.is_fitted:
            raise NotFittedError(
                f"{who}: this {type(self).__name__} is not fitted. Call .fit(x) and use what it returns."
            )

    def check_unrotated(self, who: str) -> None:
        """Check that the codec has no rotation.

        Parameters
        ----------
        who : str
            The caller, for the error text.

        Raises
        ------
        GpuzipError
            If it has one.
        """
        if self._rotation is not None:
            raise GpuzipError(
                f"{who}: the codec must have no rotation, so that codes stand for values of the rows; got "
                f"{self._rotation!r}. Use a {type(self).__name__} with rotation=None."
            )

    @property
    def spec(self) -> str:
        """The settings as text that `gpuzip.from_spec` reads, such as "OPQ48,PQ48x8".

        Raises GpuzipError for settings that no text stands for.
        """
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
            If the earlier loss is not known.
        """
        return drift_of(self, new_x, x)

    @abstractmethod
    def encode(self, x: Matrix, *, progress: Progress = None) -> Any:
        """Compress rows; `Quantizer` implements it.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to compress.
        progress : bool or callable, optional
            True shows a bar. A function is called after every block with the rows done and all rows.

        Returns
        -------
        Codes
            The N compressed rows.
        """

    @abstractmethod
    def save(self, path: Any) -> Any:
        """Write the codec alone; `Quantizer` implements it.

        Parameters
        ----------
        path : str, path-like or binary file
            File to write.

        Returns
        -------
        FileInfo
            The header of the file.
        """
