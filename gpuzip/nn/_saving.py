"""A warning when another library saves a model whose embeddings it cannot load again."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from typing import Any

from torch import nn

from gpuzip.nn._table import QuantizedTable

#: Methods of transformers and sentence-transformers that write a folder for a loader of their own.
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
        who = f"{type(self._model).__name__}.{self._name}"
        warnings.warn(
            f"{who}: compressed embeddings are written as codes, which the library's loader cannot read: "
            "it fails, or draws the embeddings anew. To load them, build the dense model, call "
            "quantize_embeddings_ and load_state_dict.",
            stacklevel=2,
        )
        token = _warned.set(True)
        try:
            return method(self._model, *args, **kwargs)
        finally:
            _warned.reset(token)


def warn_on_save(model: nn.Module) -> None:
    """Make the methods that save a model, or a part of it, warn if it holds compressed embeddings."""
    for part in model.modules():
        names = [name for name in _METHODS if callable(getattr(type(part), name, None))]
        if names and any(isinstance(inner, QuantizedTable) for inner in part.modules()):
            for name in names:
                part.__dict__[name] = WarnedSave(part, name)
