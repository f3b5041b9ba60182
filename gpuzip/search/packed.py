"""The inputs of a search: packed codes with cached facts about their rows, and the codec that scores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing
from gpuzip._core.planes import Planes, owned
from gpuzip.search.scorer import Scorer


class Packed:
    """N codes of B bytes, with a cache of facts about the rows.

    Parameters
    ----------
    data : (N, B) uint8 tensor or Planes
    find_norms : callable
        Returns the (N,) float32 L2 norms of the decoded rows of `data`.
    """

    def __init__(self, data: Tensor | Planes, find_norms: Callable[[Tensor], Tensor]) -> None:
        self.data = cast(Tensor, data)  # Planes have the tensor methods used here
        self._find_norms = find_norms
        self._remembered: dict[str, Any] = {}

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def __getstate__(self) -> dict[str, Any]:
        """These rows alone, whatever they are a slice of, and nothing that can be found again."""
        data = owned(self.data) if isinstance(self.data, Tensor) else self.data
        return vars(self) | {"data": data, "_remembered": {}}

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def norms(self) -> Tensor:
        """(N,) float32: the L2 norms of decoded rows. Computed once and kept, 4 bytes per row."""
        norms: Tensor = self.remembered("norms", lambda: self._find_norms(self.data))
        return norms

    def remembered(self, name: str, find: Callable[[], Any]) -> Any:
        """The cached result of `find`, called the first time that `name` is asked for."""
        if name in self._remembered:
            return self._remembered[name]
        found = find()
        if not is_capturing(self.device):  # a captured tensor has its values only after a replay
            self._remembered[name] = found
        return found

    def moved_from(self, other: Packed) -> Packed:
        """Take over the norms, if known, from a copy of the same rows on another device."""
        if "norms" in other._remembered:
            self._remembered["norms"] = other.norms.to(self.device)
        return self


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
