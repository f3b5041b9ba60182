"""Which rows a search may find: by a mask, by ids, or by an expression on the columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import check_mask
from gpuzip.dataset.columns import is_expression, matches
from gpuzip.dataset.ids import Array, as_ids
from gpuzip.dataset.searching import WHO
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError


def allowed_rows(view: View, filter: Any, mask: Any) -> list[Array | None]:
    """Per shard, (n,) bool over its rows, removed ones too; None where all may be found."""
    found = [None if shard.gone is None else ~shard.gone for shard in view.shards]
    if filter is not None and (_is_bool(filter)):
        filter, masks = None, [filter, mask]
    else:
        masks = [mask]
    for one in masks:
        if one is not None:
            found = _both(found, _of_mask(view, one))
    if filter is not None:
        found = _both(found, _of_expression(view, filter) if is_expression(filter) else _of_ids(view, filter))
    return found


def _both(some: list[Array | None], others: list[Array]) -> list[Array | None]:
    return [other if one is None else one & other for one, other in zip(some, others, strict=True)]


def _is_bool(filter: Any) -> bool:
    if isinstance(filter, Tensor | np.ndarray):
        return str(filter.dtype).removeprefix("torch.") == "bool"
    return isinstance(filter, list | tuple) and bool(filter) and all(isinstance(one, bool) for one in filter)


def _of_mask(view: View, mask: Any) -> list[Array]:
    """A mask of all live rows, in order."""
    if isinstance(mask, list | tuple):
        mask = np.asarray(mask)
    allowed = check_mask(WHO, mask, len(view), torch.device("cpu")).numpy()
    found = []
    for shard, start in zip(view.shards, view.starts.tolist(), strict=False):
        some = np.zeros(shard.entry.n, bool)
        some[slice(None) if shard.gone is None else ~shard.gone] = allowed[start : start + len(shard)]
        found.append(some)
    return found


def _of_ids(view: View, ids: Any) -> list[Array]:
    found = [np.zeros(shard.entry.n, bool) for shard in view.shards]
    for number, _, rows in view.locate(WHO, as_ids(f"{WHO}: filter", view.kind, ids)):
        found[number][rows] = True
    return found


def _of_expression(view: View, expression: Any) -> list[Array]:
    if view.shards and not view.manifest.columns:
        raise GpuzipError(
            f"{WHO}: filter must be a mask or ids for a dataset without columns; got an expression."
        )
    return [matches(shard.files.columns, shard.entry.n, expression) for shard in view.shards]
