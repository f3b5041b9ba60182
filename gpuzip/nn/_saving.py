"""What the libraries that save models are told of compressed embeddings."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from torch import nn

from gpuzip.nn._marks import marking
from gpuzip.nn._table import QuantizedTable

#: Methods that write a folder for a loader of their own.
_METHODS = ("save_pretrained", "save")

_warned: ContextVar[bool] = ContextVar("_warned", default=False)


class WarnedSave:
    """A method of a model, called after a warning. It can be copied and pickled with the model."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self._model, self._name = model, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        method = getattr(type(self._model), self._name)
        if _warned.get():  # the caller is a method that warned
            return method(self._model, *args, **kwargs)
        warnings.warn(
            f"{type(self._model).__name__}.{self._name}: compressed embeddings are written as codes, which "
            "only gpuzip reads. To load them, build the dense model and call "
            "gpuzip.nn.load_compressed(path, model).",
            stacklevel=2,
        )
        token = _warned.set(True)
        try:
            with marking():
                return method(self._model, *args, **kwargs)
        finally:
            _warned.reset(token)


def prepare_saving(model: nn.Module) -> None:
    """Let transformers and sentence-transformers save compressed tables; other methods that save warn."""
    known = _adopted(model)
    for part in reversed(list(model.modules())):  # inner parts first
        inner = [m for m in part.children() for m in m.modules()]
        told = {id(m) for one in inner if one in known for m in one.modules()}
        tables = [m for m in inner if isinstance(m, QuantizedTable) and id(m) not in told]
        names = [name for name in _METHODS if callable(getattr(type(part), name, None))]
        if tables and names and part not in known:
            for name in names:
                part.__dict__[name] = WarnedSave(part, name)
            known.add(part)


def _adopted(model: nn.Module) -> set[nn.Module]:
    """Parts that save compressed tables by themselves, from now on."""
    parts: set[nn.Module] = set()
    with suppress(ImportError):  # of versions that are too old
        if "transformers.modeling_utils" in sys.modules:
            from gpuzip.nn import transformers

            parts |= transformers.adopt(model)
        if "sentence_transformers" in sys.modules:
            from gpuzip.nn import sentence_transformers

            parts |= sentence_transformers.adopt(model)
    return parts
