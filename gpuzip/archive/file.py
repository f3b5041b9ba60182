"""Archives in files."""

from __future__ import annotations

from gpuzip._core.quality import Quality
from gpuzip.archive import transform
from gpuzip.archive.archive import Archive
from gpuzip.archive.coder import TransformCoder
from gpuzip.archive.scheme import Scheme
from gpuzip.errors import FormatError
from gpuzip.storage import FileInfo, Target
from gpuzip.storage.file import ArchiveContents, write_archive


def write(path: Target, archive: Archive, quality: Quality | None) -> FileInfo:
    """Write an archive to one file."""
    coder = archive.codec
    return write_archive(
        path,
        blocks=archive.blocks,
        model=coder.scheme.model,
        kept=archive.kept,
        codec_id=coder.id,
        config=coder.scheme.config(),
        n=len(archive),
        d=coder.d,
        dtype=archive.dtype,
        quality=quality,
    )


def opened(contents: ArchiveContents) -> Archive:
    """The archive in a file. Raises FormatError if its parts do not fit together."""
    info = contents.info
    try:
        coder = TransformCoder(fitted=_scheme(contents), block_rows=contents.blocks.rows)
    except FormatError as error:
        raise FormatError(f"{info.path}: {error}") from error
    archive = Archive(coder, contents.blocks, info.n, info.dtype, contents.kept)
    archive.unverified = contents.unverified
    return archive


def _scheme(contents: ArchiveContents) -> Scheme:
    return transform.restored(contents.info.config, contents.model, contents.info.d)
