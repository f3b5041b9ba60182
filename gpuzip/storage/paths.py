"""The one rule for path arguments: a path of this computer, `~` expanded, and no URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gpuzip.errors import GpuzipError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a drive letter is one character; Path() halves slashes


def local_path(who: str, path: Any, name: str = "path") -> Path:
    """A caller's path argument, with `~` and `~user` expanded.

    Raises TypeError for what is no path, and GpuzipError for a URL.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"{who}: {name} must be a str or path-like; got {type(path).__name__}. Give the name of a file."
        )
    text = os.fsdecode(path)
    if _URL.match(text):
        raise GpuzipError(
            f"{who}: {name} must be on this computer; got the URL {text!r}. Copy the file from or to there. "
            "gpuzip.open, load, info, load_codec and save take URLs of .ezip files."
        )
    if "\0" in text:
        raise GpuzipError(f"{who}: {name} must hold no zero character; got {text!r}. Correct it.")
    return Path(os.path.expanduser(text))
