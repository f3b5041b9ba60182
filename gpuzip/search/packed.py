"""The inputs of a search: packed codes with cached facts about their rows, and the codec that scores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing
from gpuzip._core.few import is_plain
from gpuzip._core.planes import Planes, owned, versions
from gpuzip.ops.grid import grid_tiles
from gpuzip.ops.one_pass import turned, turned_share
from gpuzip.search.memory import WORKSPACE
from gpuzip.search.prepared import Search
from gpuzip.search.scorer import Scorer

_MOST_TURNED = WORKSPACE  # bytes of codes whose columns are kept


class Unverified(Protocol):
    """Blocks of codes to verify before they are read; see `storage.blocks.Unverified`."""

    @property
    def is_remote(self) -> bool: ...
    def verify(self, rows: slice | Tensor, planes: Sequence[int] | None = None) -> bool: ...
    def read_in_order(self) -> None: ...
    def part(self, start: int, stop: int) -> Unverified: ...


class Packed:
    """N codes of B bytes, with a cache of facts about the rows.

    Parameters
    ----------
    raw : (N, B) uint8 tensor or Planes
        The codes. Those that are mapped from a file may be damaged until they are verified; those of a
        remote file are not there before.
    find_norms : callable
        Returns the (N,) float32 L2 norms of the decoded rows of `data`.
    unverified : Unverified, optional
        The blocks of `raw` that are verified when their rows are first read. None: there are none.
    """

    raw: Tensor

    def __init__(
        self,
        raw: Tensor | Planes,
        find_norms: Callable[[Tensor], Tensor],
        unverified: Unverified | None = None,
    ) -> None:
        self.raw = cast(Tensor, raw)  # Planes have the tensor methods used here
        self._find_norms, self._unverified = find_norms, unverified
        self._remembered: dict[str, Any] = {}
        self.prepared: dict[str, Search | None] = {}  # by metric; None: was searched once

    def __len__(self) -> int:
        return int(self.raw.shape[0])

    def __getitem__(self, rows: slice | Tensor) -> Packed:
        """Codes of some rows: a slice of step 1 of a tensor is verified when it is read, a copy at once."""
        if isinstance(self.raw, Planes) or isinstance(rows, Tensor) or rows.step not in (None, 1):
            return Packed(self.verified(rows)[rows], self._find_norms)
        start, stop, _ = rows.indices(len(self))
        unverified = None if self._unverified is None else self._unverified.part(start, max(start, stop))
        return Packed(self.raw[rows], self._find_norms, unverified)

    def __getstate__(self) -> dict[str, Any]:
        """These rows alone, whatever they are a slice of, and nothing that can be found again."""
        data = owned(self.data) if isinstance(self.raw, Tensor) else self.data
        return vars(self) | {"raw": data, "_unverified": None, "_remembered": {}, "prepared": {}}

    @property
    def is_verified(self) -> bool:
        """Whether all codes are, or need not be."""
        return self._unverified is None

    @property
    def data(self) -> Tensor:
        """(N, B) uint8 tensor or Planes, verified."""
        return self.raw if self._unverified is None else self.verified(slice(None))

    def fetch(self) -> Tensor:
        """`raw`, fetched in large ranges if the file is remote; not verified if it is mapped."""
        unverified = self._unverified
        if unverified is None:
            return self.raw
        if unverified.is_remote:
            return self.data
        unverified.read_in_order()
        return self.raw

    def verified(self, rows: slice | Tensor, planes: Sequence[int] | None = None) -> Tensor:
        """`raw`, of which these rows are verified: a slice, int64 ids or a mask.

        planes: the numbers of the planes that will be read; all if None. Raises FormatError, which names the
        file, for rows that do not match their checksums.
        """
        unverified = self._unverified  # another thread may set it to None
        if unverified is not None and unverified.verify(self._as_read(rows), planes):
            self._unverified = None
        return self.raw

    def _as_read(self, rows: slice | Tensor) -> slice | Tensor:
        if isinstance(rows, slice):
            return slice(*rows.indices(len(self))[:2])
        return rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows

    @property
    def device(self) -> torch.device:
        return self.raw.device

    def to(self, device: torch.device, find_norms: Callable[[Tensor], Tensor]) -> Packed:
        """A copy on another device, verified, with the norms if they are known."""
        if device == self.device:
            moved = Packed(self.raw, find_norms, self._unverified)
        else:
            moved = Packed(self.data.to(device), find_norms)
        if "norms" in self._remembered:
            moved._remembered["norms"] = self.norms.to(device)
        return moved

    @property
    def norms(self) -> Tensor:
        """(N,) float32: the L2 norms of decoded rows. Computed once and kept, 4 bytes per row."""
        norms: Tensor = self.remembered("norms", lambda: self._find_norms(self.data))
        return norms

    def turned(self, planes: Sequence[Tensor]) -> Tensor | None:
        """The bytes of planes of these codes as columns, from the second search on, if there is room.

        They take as many bytes as the planes, four times as many where loops do not run, and at most 128 MB.
        Codes that changed since are turned again.
        """
        share = turned_share()
        if share * sum(plane.nbytes for plane in planes) > _MOST_TURNED:
            return None
        return self._from_the_second_on("turned", planes, share, lambda: turned(planes))

    def grid_tiles(self, planes: Sequence[Tensor]) -> Tensor | None:
        """What `grid_tiles` makes of planes of these codes, of the first rows if there is no room for all."""
        return self._from_the_second_on("grid tiles", planes, None, lambda: grid_tiles(planes, _MOST_TURNED))

    def _from_the_second_on(
        self, name: str, planes: Sequence[Tensor], kind: object, make: Callable[[], Tensor | None]
    ) -> Tensor | None:
        """What `make` returns, kept while planes and kind are the same; None before the second time."""
        if not all(map(is_plain, planes)):
            return None
        made = versions(planes), kind
        kept: tuple[Any, Tensor | None] | None = self._remembered.get(name)
        if kept is None or kept[0] != made:  # one search alone takes less time without
            self._remembered[name] = made, None
            return None
        if kept[1] is None:
            self._remembered[name] = kept = made, make()
        return kept[1]

    def floats(self, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, D) float32 rows, decoded and kept: for few rows on a CPU. Changed codes are decoded again."""
        floats: Tensor = self.while_unchanged("floats", [self.data], lambda: decode(self.data))
        return floats

    def while_unchanged(self, name: str, planes: Sequence[Tensor], find: Callable[[], Any]) -> Any:
        """The cached result of `find`, called anew when planes changed since."""
        made = versions(planes)
        kept: tuple[Any, Any] | None = self._remembered.get(name)
        if kept is None or kept[0] != made:
            self._remembered[name] = kept = made, find()
        return kept[1]

    def remembered(self, name: str, find: Callable[[], Any]) -> Any:
        """The cached result of `find`, called the first time that `name` is asked for."""
        if name in self._remembered:
            return self._remembered[name]
        found = find()
        if not is_capturing(self.device):  # a captured tensor has its values only after a replay
            self._remembered[name] = found
        return found


class Scoring(Protocol):
    """The part of `codecs.base.Codec` that a search uses; the names are described there."""

    @property
    def metrics(self) -> tuple[str, ...]: ...
    @property
    def coarse_kinds(self) -> Mapping[str, bool]: ...
    @property
    def gather_cost(self) -> int: ...
    @property
    def score_bytes(self) -> int: ...
    @property
    def scorer_bytes(self) -> int: ...
    @property
    def first_scorer_bytes(self) -> int: ...
    @property
    def code_size(self) -> int: ...
    @property
    def searches_alike(self) -> bool: ...
    @property
    def d(self) -> int: ...

    def check_fitted(self, who: str) -> None: ...
    def scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None = None) -> Scorer: ...
    def prepared(self, packed: Packed, metric: str) -> Search | None: ...
    def coarse(self, packed: Packed, kind: str) -> Searched: ...


class Searched(NamedTuple):
    """Packed codes and the codec that scores them."""

    codec: Scoring
    packed: Packed
