"""Every launch, byte and wait of one search of PQ codes on an H200: modelled, nothing of it measured.

    python -m tools.gate.search_model [--write]

The search itself runs on tensors without memory that are said to be on a GPU, so its chunks, its candidates
and its operators are those of the code. An operator of gpuzip takes what tools/gate/model.py says of its
kernels, one of torch its bytes at the rate of copies, and no launch less than _LAUNCH. It is the second of
two searches: what depends on the codes alone is kept from the first. --write puts the table into
tools/README.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.cells import aligned
from bench.cells import lines as markdown
from bench.checkout import ROOT
from gpuzip import Codes, ProductQuantizer
from gpuzip._core import device
from gpuzip._core.checks import SearchMetric
from gpuzip.codecs.pq import Codebook
from tools.roof.cases import launcher
from tools.roof.floors import H200

PAGE = ROOT / "tools" / "README.md"
HEADS = ["queries, metric", "operator", "calls", "launches", "bytes", "modelled", "waits"]
SEARCHES: tuple[tuple[int, SearchMetric], ...] = ((1, "ip"), (1, "cosine"), (1024, "ip"), (1024, "cosine"))
_PLACE = re.compile(r"(<!-- search -->\n).*?(<!-- /search -->)", re.DOTALL)
_MEMORY = 141 * 10**9  # of an H200
_LAUNCH = 2e-6  # seconds: what the least kernel takes on a GPU, an estimate
_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
_VIEWS = {
    f"aten::{name}"
    for name in ("view", "_unsafe_view", "slice", "select", "expand", "unsqueeze", "squeeze", "permute")
} | {f"aten::{name}" for name in ("transpose", "t", "detach", "alias", "split", "unbind", "as_strided")}
_VIEWS |= {"aten::empty", "aten::new_empty", "aten::empty_strided", "aten::lift_fresh", "prim::device"}


class Step(NamedTuple):
    """An operator with its arguments, of which tensors have no memory. bytes: that go in and come out."""

    name: str
    arguments: tuple[Any, ...]
    bytes: int

    @property
    def op(self) -> str:
        """The name of an operator of gpuzip, else ""."""
        return self.name.removeprefix("gpuzip::") if self.name.startswith("gpuzip::") else ""


class _Recorder(TorchDispatchMode):
    """Notes what is launched and waited for; what the CPU would read of the GPU are guesses.

    peak: the most bytes that results took at a time; what operators of gpuzip take inside is not in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.waits = self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _WAITS:
            self.waits += 1
            return _guess(name, args[0])
        out = func(*args, **(kwargs or {}))
        if name not in _VIEWS:
            read = args[1:] if name == "aten::gather" else args  # which reads little of its first
            size = _bytes(read) + _bytes(out if isinstance(out, tuple) else (out,))
            self.steps.append(Step(name, tuple(_like(value) for value in args), size))
            self._keep(args, out if isinstance(out, tuple) else (out,))
        return out

    def _keep(self, given: Any, made: tuple[Any, ...]) -> None:
        """Count the memory of what was made as long as it is there."""
        old = {tensor.untyped_storage()._cdata for tensor in given if isinstance(tensor, Tensor)}
        for tensor in made:
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in old and key not in self._live:
                self._live[key] = storage.nbytes()
                weakref.finalize(storage, self._live.pop, key)
        self.peak = max(self.peak, sum(self._live.values()))


def _like(value: Any) -> Any:
    """An argument, where it is a tensor or a list of some without what keeps their memory."""
    if isinstance(value, list | tuple):
        return [_like(one) for one in value]
    return torch.empty_like(value) if isinstance(value, Tensor) else value


def _guess(name: str, tensor: Tensor) -> Any:
    """No query is unsure, values are 1, and nothing is wrong."""
    if name == "aten::nonzero":
        return tensor.new_empty((0, tensor.ndim), dtype=torch.int64)
    return tensor.dtype != torch.bool if tensor.ndim == 0 and not tensor.is_floating_point() else 1.0


def _bytes(values: Any) -> int:
    """Bytes of the tensors among them; a broadcast one is read once."""
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            real = [n for n, stride in zip(value.shape, value.stride(), strict=True) if stride]
            total += torch.Size(real).numel() * value.element_size()
    return total


@contextmanager
def _a_gpu() -> Iterator[None]:
    """Tensors without memory, and a CPU that is said to be a GPU."""
    memory = mock.Mock(return_value=SimpleNamespace(total_memory=_MEMORY))
    is_gpu = mock.patch.object(device, "_GPUS", {"cuda", "cpu"})
    with is_gpu, mock.patch.object(torch.cuda, "get_device_properties", memory), FakeTensorMode():
        yield


def recorded(N: int, Q: int, k: int, metric: SearchMetric) -> _Recorder:
    """A search of N codes of 48 sub-spaces for Q queries, the second of its kind."""
    with _a_gpu():
        codec = ProductQuantizer(48, 8, fitted=Codebook(torch.empty(48, 256, 8), 384))
        codes = Codes(codec, torch.empty(N, 48, dtype=torch.uint8))
        for _ in range(2):
            recorder = _Recorder()
            with recorder:
                codes.search(torch.empty(Q, 384), k=k, metric=metric)
    return recorder


def _cost(step: Step) -> list[float]:
    """Calls, launches, the bytes that they move from and to memory, and seconds."""
    from tools.gate import model
    from tools.gate.build import launches

    if not step.op:
        return [1, 1, step.bytes, max(_LAUNCH, step.bytes / H200.copy)]
    meta = [torch.empty_like(a, device="meta") if isinstance(a, Tensor) else a for a in step.arguments]
    kernels = [kernel for _, kernel in model.kernels(launches("sm_90", launcher(step.op), meta))]
    seconds = sum(max(_LAUNCH, kernel.seconds) for kernel in kernels)
    return [1, len(kernels), sum(kernel.moved for kernel in kernels), seconds]


def lines(N: int = 10**8, k: int = 100) -> list[list[str]]:
    """A line for each operator of gpuzip, one for all of torch, their sum, and the waits of each search."""
    return [line for Q, metric in SEARCHES for line in _lines(recorded(N, Q, k, metric), Q, metric)]


def _lines(recorder: _Recorder, Q: int, metric: str) -> Iterator[list[str]]:
    known: dict[str, list[float]] = {}
    groups: dict[str, list[float]] = {}
    for step in recorder.steps:
        key = f"{step.name} {[a.shape if isinstance(a, Tensor) else a for a in step.arguments]}"
        if key not in known:
            known[key] = _cost(step)
        group = groups.setdefault(step.op or "torch", [0.0] * 4)
        group[:] = map(sum, zip(group, known[key], strict=True))
    groups["in all"] = list(map(sum, zip(*groups.values(), strict=True)))
    for name, (calls, launches, size, seconds) in groups.items():
        waits = str(recorder.waits) if name == "in all" else ""
        amounts = f"{size / 1e9:,.3g} GB", f"{seconds * 1e3:.3g} ms"
        yield [f"{Q:,}, {metric}", name, f"{calls:.0f}", f"{launches:.0f}", *amounts, waits]


def written(page: str, found: list[list[str]]) -> str:
    """The page with these lines in its place for them."""
    body = "\n".join(markdown(" | ".join(HEADS), map(" | ".join, found)))
    return _PLACE.sub(lambda place: f"{place[1]}{body}\n{place[2]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gate.search_model")
    parser.add_argument("--write", action="store_true", help=f"write the table of {PAGE.name}")
    write = parser.parse_args().write
    found = lines()
    print("Modelled search of 1e8 codes, m=48, k=100; nothing of it is measured:")
    print(aligned(HEADS, found, left={HEADS[0], HEADS[1]}))
    if write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
