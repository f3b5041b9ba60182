"""Docstrings that are not numpydoc yet, as Markdown: a paragraph for each argument, and no stray emphasis.

Docstrings with a numpydoc section are left as they are. The others describe arguments as "name: what it is",
and say "Returns ...", "Raises ..." and "Source: ..." at the start of a line. Each line that begins so begins
a paragraph here. Outside of `code`, what Markdown would take for markup is escaped.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ARGUMENT = re.compile(r"(\w+(?:, (?:and )?\w+)*): ")
_START = re.compile(r"(Returns|Raises|Source:|Memory)\b")
_LATER = re.compile(r"(?<=\. )([a-z][\w\\]*): ")
_SECTION = re.compile(r"^(Parameters|Returns|Attributes|Notes|Examples)\n-+$", re.MULTILINE)
_CODE = re.compile(r"(`[^`]*`)")
_MARKUP = re.compile(r"([*_<\[\]])")


class Paragraphs(griffe.Extension):
    """Rewrites each docstring without numpydoc sections once it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and not _SECTION.search(obj.docstring.value):
            obj.docstring.value = _as_markdown(obj.docstring.value)


def _as_markdown(text: str) -> str:
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    """A line, after an empty one where it begins an argument or a sentence of its own kind."""
    named = _ARGUMENT.match(line)
    if named and named[1] != "Source":
        names = ", ".join(f"**`{name}`**" for name in re.split(r", (?:and )?", named[1]))
        return f"\n{names}: {_escaped(line[named.end() :])}"
    return f"\n{_escaped(line)}" if _START.match(line) else _escaped(line)


def _escaped(text: str) -> str:
    """With its later arguments in bold, too."""
    parts = _CODE.split(text)
    plain = (part if i % 2 else _MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))
    return _LATER.sub(lambda found: "**`" + found[1].replace("\\", "") + "`**: ", "".join(plain))
