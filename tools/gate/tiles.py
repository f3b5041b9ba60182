"""Is every tile that a launcher can choose among the compiled ones?

The `_..tile..` functions of the kernels are plain arithmetic on sizes, so they can be asked about many more
sizes than anything is compiled at. What they answer there has to be an answer that some launch got too: of
the sizes in use, of a sample or of the odd sizes. Only `--every` launches all of these and asks.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest import mock

from gpuzip.kernels.assign import _WIDEST

#: What a size may be, by its name. Other arguments are tried at the values that launches gave them.
SIZES: dict[str, list[int]] = {
    "N": [1, 37, 1000, 4096, 10**5, 10**6, 10**7, 10**8, 2**32],
    "D": [1, 3, 16, 64, 96, 384, 768, 1024, 4096],
    "M": [1, 2, 8, 48, 96, 384, 1024],
    "K": [2**i for i in range(1, 17)],
    "S": [1, 2, 3, 4, 8, 16, 17, 32, 64, 128, 384, 1024],
    "Q": [1, 2, 4, 8, 16, 32, 64, 100, 128, 256, 1000, 1024],
    "B": [1, 3, 16, 48, 96, 192, 384, 1024],
    "R": [1, 10, 100, 1000, 10**4],
    "k": [1, 10, 100, 1000],
    "group": [2**i for i in range(11)],
    "nbits": list(range(1, 17)),
    "columns": [1, 3, 16, 31, 48, 64, 96, 128, 200, 384, 1024],
}

#: What launchers know of the sizes when they ask, by function.
POSSIBLE: dict[str, Callable[..., bool]] = {
    "kernels.assign._tile": lambda K, S, per=1, **_: S <= _WIDEST and (per == 1 or K**per == 256),
    "kernels.bucketize._tile": lambda nbits, **_: 8 % nbits == 0,
    "kernels.decode._tile": lambda D, S, **_: D % S == 0,
    "kernels.product_scan._tile": lambda S, **_: S & (S - 1) == 0,
}


@dataclass
class Tiles:
    """The tile functions of some modules: what launches asked them, and what they answered."""

    asked: dict[str, dict[str, set[Any]]] = field(default_factory=dict)
    reached: dict[str, set[Any]] = field(default_factory=dict)

    @contextmanager
    def watch(self, modules: Iterable[ModuleType]) -> Iterator[None]:
        """Within the block, note every call."""
        with ExitStack() as stack:
            for module in modules:
                for name, function in _tile_functions(module):
                    stack.enter_context(mock.patch.object(module, name, self._noting(function)))
            yield

    def add(self, other: Tiles) -> None:
        for name, asked in other.asked.items():
            for parameter, values in asked.items():
                self.asked.setdefault(name, {}).setdefault(parameter, set()).update(values)
            self.reached.setdefault(name, set()).update(other.reached[name])

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name, signature = _name(function), inspect.signature(function)
        asked, reached = self.asked.setdefault(name, {}), self.reached.setdefault(name, set())

        @functools.wraps(function)
        def noting(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            for parameter, value in signature.bind(*args, **kwargs).arguments.items():
                asked.setdefault(parameter, set()).add(value)
            reached.add(answer)
            return answer

        return noting

    def unreached(self, module: ModuleType) -> Iterator[str]:
        """A line for each answer that some sizes get and no launch got."""
        for _, function in _tile_functions(module):
            name = _name(function)
            reached = set(self.reached.get(name, ()))
            if not reached:
                yield f"{name} is never asked"
                continue
            for sizes in _combinations(function, self.asked[name]):
                try:
                    answer = function(**sizes)
                except (ArithmeticError, ValueError):  # no such sizes
                    continue
                if answer not in reached:
                    reached.add(answer)
                    asked = ", ".join(f"{parameter}={value}" for parameter, value in sizes.items())
                    yield f"{name}({asked}) is {answer!r}, and nothing compiled gets it"


def answers(function: Callable[..., Any]) -> list[Any]:
    """What a tile function answers for any sizes; nothing where it asks for more than sizes."""
    if not set(inspect.signature(function).parameters) <= set(SIZES):
        return []
    found: dict[Any, None] = {}
    for sizes in _combinations(function, {}):
        with suppress(ArithmeticError, ValueError):  # no such sizes
            found.setdefault(function(**sizes))
    return list(found)


def _tile_functions(module: ModuleType) -> list[tuple[str, Callable[..., Any]]]:
    """Those that the module defines: `_tile`, `_plain_tile`, `_tile_of_...`."""
    found = inspect.getmembers(module, inspect.isfunction)
    return [(n, f) for n, f in found if re.match("_.*tile", n) and f.__module__ == module.__name__]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__.removeprefix('gpuzip.')}.{function.__name__}"


def _combinations(function: Callable[..., Any], asked: dict[str, set[Any]]) -> Iterator[dict[str, Any]]:
    """The product of what each parameter may be, of those with a value to try."""
    names = [name for name in inspect.signature(function).parameters if SIZES.get(name) or asked.get(name)]
    values = [sorted({*SIZES.get(name, ()), *asked.get(name, ())}, key=repr) for name in names]
    possible = POSSIBLE.get(_name(function), lambda **_: True)
    for combination in itertools.product(*values):
        sizes = dict(zip(names, combination, strict=True))
        if possible(**sizes):
            yield sizes
