"""A CPU that is said to be a GPU: what would wait for it is seen, and what is launched is counted."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gpuzip._core import device

# Operators whose result, or its shape, the CPU must know; lift_fresh is torch.tensor, which copies.
_WAITS = {
    f"aten::{name}"
    for name in (
        *("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
        *("equal", "is_nonzero", "bincount", "lift_fresh"),
    )
}
_FACTORIES = {
    getattr(torch, name)
    for name in ("arange", "empty", "zeros", "ones", "full", "tensor", "as_tensor", "rand", "randn", "eye")
}
_NO_LAUNCH = {
    f"aten::{name}"
    for name in (
        *(
            "view",
            "_unsafe_view",
            "slice",
            "select",
            "expand",
            "unsqueeze",
            "squeeze",
            "permute",
            "transpose",
        ),
        *("t", "detach", "alias", "split", "unbind", "empty", "empty_strided", "new_empty", "as_strided"),
    )
}


class WaitedError(AssertionError):
    """Something would have waited for the GPU where nothing may."""


class Watch(TorchDispatchMode):
    """Counts operators, but not those inside operators of gpuzip, and notes or forbids waits."""

    def __init__(self, may_wait: bool) -> None:
        super().__init__()
        self.may_wait, self.launches, self.waits = may_wait, Counter[str](), list[str]()
        self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _WAITS or (name.startswith("aten::index") and _by_a_mask(args)):
            self.wait(name)
        if name not in _NO_LAUNCH:
            self.launches[name] += 1
        self.inside = name.startswith("gpuzip::")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.inside = False

    def wait(self, name: str) -> None:
        if not self.may_wait:
            raise WaitedError(name)
        self.waits.append(name)

    @property
    def launched(self) -> int:
        return sum(self.launches.values())


class _Factories(TorchFunctionMode):
    """A tensor that is made without a device is on the CPU, and must be copied from there."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES and "device" not in (kwargs or {}) and not self._watch.inside:
            self._watch.wait(f"{func.__name__} without a device")
        return func(*args, **(kwargs or {}))


def _by_a_mask(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)


@contextlib.contextmanager
def a_gpu(is_capturing: bool, memory: int = 80 << 30) -> Iterator[None]:
    """The CPU is said to be a GPU of so many bytes, of which a graph is captured or not."""
    properties = SimpleNamespace(total_memory=memory)
    with (
        mock.patch.object(device, "_GPUS", {"cuda", "cpu"}),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=is_capturing),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=properties),
    ):
        yield


@contextlib.contextmanager
def watched(may_wait: bool) -> Iterator[Watch]:
    """What is done inside is counted; reads of a tensor by the CPU are seen too."""
    watch = Watch(may_wait)

    def seen(name: str) -> Any:
        plain = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not watch.inside:
                watch.wait(name)
            return plain(self, *args, **kwargs)

        return mock.patch.object(torch.Tensor, name, read)

    with seen("tolist"), seen("numpy"), seen("cpu"), _Factories(watch), watch:
        yield watch
