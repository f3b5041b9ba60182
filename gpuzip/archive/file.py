"""Archives in files."""

from __future__ import annotations

import os

from gpuzip.archive import exact, shared, transform
from gpuzip.archive.archive import Archive
from gpuzip.archive.coder import TransformCoder
from gpuzip.archive.dictionary import Dictionary, find_dictionary
from gpuzip.archive.scheme import Scheme
from gpuzip.errors import FormatError
from gpuzip.storage.file import ArchiveContents


def opened(
    contents: ArchiveContents, dictionary: Dictionary | str | os.PathLike[str] | None = None
) -> Archive:
    """The archive in a file. Raises FormatError if its parts do not fit, or its dictionary is not here."""
    info = contents.info
    try:
        coder = TransformCoder(fitted=_scheme(contents, dictionary), block_rows=contents.blocks.rows)
    except FormatError as error:
        raise FormatError(f"{info.path}: {error}") from error
    archive = Archive(coder, contents.blocks, info.n, info.dtype, contents.kept)
    archive.unverified = contents.unverified
    return archive


def _scheme(contents: ArchiveContents, dictionary: Dictionary | str | os.PathLike[str] | None) -> Scheme:
    info = contents.info
    if "step" in info.config:
        config = info.config
        transform.check_settings(config)
        if "dictionary" not in config:
            return transform.read(contents.model, info.d, config["step"], config["states"], config["unit"])
        found = find_dictionary(config["dictionary"], dictionary)
        if found.d != info.d:
            raise FormatError(f"the dictionary must be of {info.d} columns; it is of {found.d}.")
        return shared.restored(config, contents.model, found)
    return exact.restored(info.config, contents.model, info.d, info.dtype)
