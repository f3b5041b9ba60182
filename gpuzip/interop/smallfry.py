"""smallfry's functions for word vectors, and readers of the files that both its versions write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpuzip._core.checks import is_whole
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.folder import MANIFEST
from gpuzip.storage.paths import local_path
from gpuzip.words import WordVectors
from gpuzip.words.legacy import read_pair, read_parts
from gpuzip.words.recipe import Options
from gpuzip.words.text import lines_of
from gpuzip.words.trie import read_record_trie

Word2Idx = Mapping[str, int] | Iterable[str] | None

_FORMS = {"trie": "trie", "dict": "arrow", "list": "arrow"}
_TO_LIST = (
    'If you trust it, convert it once: python -c "import numpy as np; '
    "w = np.load('words.dict.npy', allow_pickle=True).item(); "
    "open('words.list.txt', 'w', encoding='utf-8').write(chr(10).join(sorted(w, key=w.get)))\""
)
_TO_JSON = (
    'If you trust it, convert it once: python -c "import json, sys, numpy as np; '
    "json.dump({w: float(n) for w, n in np.load(sys.argv[1], allow_pickle=True, encoding='latin1')"
    ".item().items()}, open(sys.argv[2], 'w'))\" prior.npy prior.json"
)


def compress(
    sourcepath: str | os.PathLike[str],
    outdir: str | os.PathLike[str],
    priorpath: str | os.PathLike[str] | None = None,
    mem_budget: float | None = None,
    R: float = 1,
    word_rep: str = "trie",
    max_bitrate: int | None = None,
) -> WordVectors:
    """Compress a text file of word vectors into a folder (smallfry's function of this name).

    Parameters
    ----------
    sourcepath : str or path-like
        Text file of word vectors.
    outdir : str or path-like
        Folder to write, which must not exist yet.
    priorpath : str or path-like, optional
        File of frequencies by word: a JSON object, or lines "word number". Frequent words get more bits.
    mem_budget : float, optional
        Upper bound for the bytes of the files of codes.
    R : float, default 1
        Bits per value without mem_budget. With priorpath, bits on average.
    word_rep : {"trie", "dict", "list"}, default "trie"
        How to store words. "dict" and "list" both mean Arrow.
    max_bitrate : int, optional
        Upper bound for the bits per value of any row.

    Returns
    -------
    WordVectors
        The opened folder.

    Raises
    ------
    FileExistsError
        If outdir exists.
    GpuzipError
        For an invalid argument or file.
    """
    who = "smallfry.compress"
    if word_rep not in _FORMS:
        raise GpuzipError(f"{who}: word_rep must be one of {', '.join(_FORMS)}; got {word_rep!r}.")
    outdir = local_path(who, outdir, "outdir")
    if outdir.exists():
        raise FileExistsError(f"{who}: outdir must not exist; got {outdir}. Name a new folder.")
    options: Options = {}
    if priorpath is not None:
        options["importance"] = read_prior(priorpath)
    if max_bitrate is not None:
        options["max_bits"] = max_bitrate
    if mem_budget is not None:
        options["max_bytes"] = int(mem_budget)
    elif priorpath is None and float(R).is_integer():
        options["bits"] = int(R)
    else:
        options["bits_per_dim"] = R
    WordVectors.from_text(sourcepath, **options).save(outdir, words=_FORMS[word_rep])
    return WordVectors.load(outdir)


def load(path: str | os.PathLike[str], word2idx: Word2Idx = None) -> WordVectors:
    """Open word vectors that gpuzip or smallfry wrote.

    Parameters
    ----------
    path : str or path-like
        Folder or file to open.
    word2idx : dict or sequence, optional
        Row by word, or words in the order of rows, for smallfry's files without words. Files of version 1
        never have words: without word2idx, the word of a row is its number in digits.

    Returns
    -------
    WordVectors
        The opened vectors.

    Raises
    ------
    FormatError
        If the path is neither or is damaged, or holds a pickle, which is never read. The message names the
        file and says how to convert a pickle.
    """
    source = local_path("smallfry.load", path)
    if not source.exists():
        raise FileNotFoundError(f"smallfry.load: {source} does not exist.")
    if (source / MANIFEST).exists():
        return WordVectors.load(source)
    words = None if word2idx is None else _in_order("word2idx", word2idx)
    try:
        if source.is_dir():
            stored = _stored_words(source) if words is None else words
            return WordVectors(stored, read_parts(source, len(stored)))
        codes = read_pair(source, None if words is None else len(words))
        return WordVectors(map(str, range(len(codes))) if words is None else words, codes)
    except FormatError:
        raise
    except GpuzipError as error:  # such as words that come twice
        raise FormatError(f"{source}: cannot be read as smallfry's: {error}") from error


def read_prior(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read frequencies by word: a JSON object, or UTF-8 lines "word number".

    Parameters
    ----------
    path : str or path-like
        File to read.

    Returns
    -------
    dict
        Frequency by word.

    Raises
    ------
    FormatError
        If the file is neither.
    """
    data = local_path("smallfry.read_prior", path).read_bytes()
    if data.startswith(b"\x93NUMPY"):
        raise FormatError(f"{path}: is a pickle, and reading a pickle can run code. {_TO_JSON}")
    try:
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith("{") and text.rstrip().endswith("}"):
            prior = {word: float(count) for word, count in json.loads(text).items()}
        else:
            prior = _counted_lines(path, lines_of(data))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: must be a JSON object or lines 'word number' ({error}).") from error
    if not prior:
        raise FormatError(f"{path}: must hold frequencies by word; it holds no words.")
    return prior


def _counted_lines(path: str | os.PathLike[str], lines: list[str]) -> dict[str, float]:
    prior: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        word, _, count = line.rstrip().rpartition(" " if "\t" not in line else "\t")
        if not line.strip():
            continue
        try:
            prior[word] = float(count)
        except ValueError as error:
            raise FormatError(
                f"{path}: line {number}: must be a word and a number; got {line[:40]!r}."
            ) from error
    return prior


def _stored_words(folder: Path) -> list[str]:
    trie, listed, pickled = (folder / f"words.{end}" for end in ("trie.marisa", "list.txt", "dict.npy"))
    if listed.exists():
        try:
            return lines_of(listed.read_bytes())
        except UnicodeDecodeError as error:
            raise FormatError(f"{listed}: must be UTF-8 ({error.reason}).") from error
    if trie.exists():
        return _in_order(str(trie), read_record_trie(trie))
    if pickled.exists():
        raise FormatError(f"{pickled}: is a pickle, and reading a pickle can run code. {_TO_LIST}")
    raise FormatError(f"{folder}: has no words. Pass word2idx, or write them to {listed.name}, one per line.")


def _in_order(name: str, words: Any) -> list[str]:
    """Return words in the order of rows. Raises FormatError unless their rows are 0, 1, ..."""
    if not isinstance(words, Mapping):
        return list(words)
    rows: dict[int, str] = {}
    for word, row in words.items():
        if not is_whole(row) or not 0 <= row < len(words) or row in rows:
            raise FormatError(f"{name}: words must have the rows 0, 1, ...; got row {row!r} for {word!r}.")
        rows[int(row)] = word
    return [rows[row] for row in range(len(rows))]
