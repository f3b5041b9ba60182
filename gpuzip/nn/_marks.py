"""What a checkpoint says of a compressed table, under the name of the dense weight that it replaces.

A loader that does not know codes finds `<table>.weight` in place of a missing key. It has one dimension, so
that the loader fails on its shape, instead of drawing the weight anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import get_args

import torch
from torch import Tensor

from gpuzip.errors import FormatError
from gpuzip.nn._shapes import Trainable

_FORMAT = "gpuzip"
_LONGEST = 1 << 12  # bytes; a mark has about 60, and the name of a table

#: While a checkpoint is written: the name of the table that holds each tensor of codes, by its id.
_holders: ContextVar[dict[int, str] | None] = ContextVar("_holders", default=None)


@dataclass(frozen=True)
class Mark:
    """trainable, embedding_dim: as in QuantizedEmbedding. tied_to: the table that holds this one's codes."""

    trainable: Trainable | None = None
    tied_to: str | None = None
    embedding_dim: int | None = None

    def to_tensor(self) -> Tensor:
        text = json.dumps({"format": _FORMAT} | asdict(self))
        return torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")

    @classmethod
    def of_tensor(cls, key: str, tensor: Tensor) -> Mark:
        """Read a mark. Raises FormatError, which names its key."""
        try:
            said = json.loads(bytes(tensor[:_LONGEST].tolist()))
            mark = cls(said["trainable"], said["tied_to"], said["embedding_dim"])
            known = said["format"] == _FORMAT and mark.trainable in (None, *get_args(Trainable))
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        if known and isinstance(mark.tied_to, str | None) and isinstance(mark.embedding_dim, int):
            return mark
        raise FormatError(f"{key}: must describe a compressed table. Restore the file, or save it again.")


def is_mark(tensor: Tensor) -> bool:
    """Whether a tensor under the name of a weight is a mark, by its shape and dtype."""
    return tensor.ndim == 1 and tensor.dtype == torch.uint8


@contextmanager
def marking() -> Iterator[None]:
    """Within it, state_dict() has a mark per table, and codes of tied tables once. Nested ones do nothing."""
    if _holders.get() is not None:
        yield
        return
    token = _holders.set({})
    try:
        yield
    finally:
        _holders.reset(token)


def holder_of(codes: Tensor, name: str) -> str | None:
    """Return the table of these codes in the checkpoint that is written: `name` if none has them yet.

    None if no checkpoint is written.
    """
    holders = _holders.get()
    return None if holders is None else holders.setdefault(id(codes), name)
