"""Word vectors as a folder: one file of codes per part, and two files for the words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpuzip._core.checks import is_whole
from gpuzip.api import open as open_codes
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.folder import Folder, Writer, read_folder, write_folder
from gpuzip.words.arrow import ArrowWords, write_arrow
from gpuzip.words.lookup import write_lookup
from gpuzip.words.trie import TrieWords, write_trie, write_trie_rows
from gpuzip.words.vocabulary import Vocabulary

KIND = "words"

_WRITERS: dict[str, dict[str, Callable[[Iterable[str], Path], None]]] = {
    "arrow": {"words.arrow": write_arrow, "lookup.safetensors": write_lookup},
    "trie": {"words.trie": write_trie, "rows.safetensors": write_trie_rows},
}


def write_words(
    path: str | os.PathLike[str], vocabulary: Vocabulary, codes: Codes | MixedCodes, form: str
) -> None:
    """Write or replace a folder. form: how to store words, "arrow" or "trie". See `WordVectors.save`."""
    if form not in _WRITERS:
        raise GpuzipError(f"WordVectors.save: words must be one of {', '.join(_WRITERS)}; got {form!r}.")
    mixed = isinstance(codes, MixedCodes)
    parts: list[Codes] = list(codes.parts) if isinstance(codes, MixedCodes) else [codes]
    writers: dict[str, Writer] = {f"part-{i}.ezip": part.save for i, part in enumerate(parts)}
    for label, write in _WRITERS[form].items():
        writers[label] = partial(write, vocabulary)
    about = {"words": form, "mixed": mixed, "rows": [len(part) for part in parts], "d": codes.shape[1]}
    write_folder(path, KIND, about, writers)


def read_words(
    path: str | os.PathLike[str], *, verify: bool, device: torch.device | str | None
) -> tuple[Vocabulary, Codes | MixedCodes]:
    """Map the words and codes of a folder. Raises what `storage.folder.read_folder` raises."""
    return read_folder(path, KIND, partial(_opened, device=device), verify=verify)


def _opened(folder: Folder, device: torch.device | str | None) -> tuple[Vocabulary, Codes | MixedCodes]:
    form, rows, d = _described(folder)
    parts = [_part(folder.file(f"part-{i}.ezip"), n, d) for i, n in enumerate(rows)]
    vocabulary: Vocabulary
    if form == "trie":
        vocabulary = TrieWords(folder.verified("words.trie"), folder.file("rows.safetensors"), sum(rows))
    else:
        vocabulary = ArrowWords(folder.file("words.arrow"), folder.file("lookup.safetensors"), sum(rows))
    try:
        codes = MixedCodes(parts) if folder.about["mixed"] else parts[0]
    except GpuzipError as error:
        raise FormatError(f"{folder.path}: its parts are of different folders: {error}") from error
    return vocabulary, codes if device is None else codes.to(device)


def _described(folder: Folder) -> tuple[str, list[int], int]:
    """Return how words are stored, the rows of each part, and the dimensions."""
    about: dict[str, Any] = folder.about
    rows = about.get("rows")
    plausible = (
        set(about) == {"words", "mixed", "rows", "d"}
        and isinstance(about["words"], str)
        and about["words"] in _WRITERS
        and isinstance(about["mixed"], bool)
        and isinstance(rows, list)
        and len(rows) >= 1
        and (about["mixed"] or len(rows) == 1)
        and all(is_whole(n) and n >= 0 for n in [*rows, about["d"]])
    )
    if not plausible:
        raise FormatError(f"{folder.path}: its manifest must describe word vectors; got {about!r:.200}.")
    return about["words"], about["rows"], about["d"]


def _part(path: Path, n: int, d: int) -> Codes:
    codes = open_codes(path)
    if codes.shape != (n, d):
        raise FormatError(
            f"{path}: must have shape {(n, d)}, as in its manifest; it has {codes.shape}. Restore it."
        )
    return codes
