"""What a search sees: packed codes with what is known of all rows, and the codec that scores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing
from gpuzip._core.planes import Planes
from gpuzip.search.scorer import Scorer


class Packed:
    """N codes of B bytes, and facts about all rows that are found once.

    Parameters
    ----------
    data : (N, B) uint8 tensor or Planes
    find_norms : callable
        Gives the (N,) float32 L2 norms of the decoded rows of `data`.
    """

    def __init__(self, data: Tensor | Planes, find_norms: Callable[[Tensor], Tensor]) -> None:
        self.data = cast(Tensor, data)  # Planes do what is asked of a tensor here
        self._find_norms = find_norms
        self._remembered: dict[str, Any] = {}

    def __len__(self) -> int:
        return int(self.data.shape[0])

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def norms(self) -> Tensor:
        """(N,) float32: the L2 norm of every decoded row. Computed once, 4 bytes per row."""
        norms: Tensor = self.remembered("norms", lambda: self._find_norms(self.data))
        return norms

    def remembered(self, name: str, find: Callable[[], Any]) -> Any:
        """What `find` gave when it was first asked for: a fact that a scorer needs of every query."""
        if name in self._remembered:
            return self._remembered[name]
        found = find()
        if not is_capturing(self.device):  # else it is the graph's, and there after a replay only
            self._remembered[name] = found
        return found

    def moved_from(self, other: Packed) -> Packed:
        """Keeps the norms that another of the same rows has found, on this device."""
        if "norms" in other._remembered:
            self._remembered["norms"] = other.norms.to(self.device)
        return self


class Scoring(Protocol):
    """What a search asks of a codec; `codecs.base.Codec` says what each name means."""

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
    def code_size(self) -> int: ...
    @property
    def d(self) -> int: ...

    def check_fitted(self, who: str) -> None: ...
    def scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None = None) -> Scorer: ...
    def coarse(self, packed: Packed, kind: str) -> Searched: ...


class Searched(NamedTuple):
    """Packed codes and the codec that scores them."""

    codec: Scoring
    packed: Packed
