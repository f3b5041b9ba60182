"""Former names of `fitted`, kept for one release."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def formerly(name: str, learned: Callable[[Any], Any]) -> Callable[[type[Kind]], type[Kind]]:
    """Class decorator: accept the keyword `name`, and pass `learned` of it as `fitted`."""

    def of(codec: type[Kind]) -> type[Kind]:
        init: Any = codec.__init__

        @wraps(init)
        def accept(self: Any, *args: Any, **given: Any) -> None:
            if name in given:
                warnings.warn(
                    f"{codec.__name__}: {name}= is now fitted=; the old name goes with the next release.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                former = given.pop(name)
                given["fitted"] = None if former is None else learned(former)
            init(self, *args, **given)

        codec.__init__ = accept  # type: ignore[method-assign]
        return codec

    return of
