"""Files and folders of codes, written atomically and checked before use."""

from gpuzip.storage.blocks import table_bytes
from gpuzip.storage.file import (
    ArchiveContents,
    Contents,
    check_target,
    local_target,
    read_codes,
    read_file,
    read_info,
    write_archive,
    write_codes,
)
from gpuzip.storage.folder import MANIFEST_BYTES
from gpuzip.storage.header import FORMAT, HEADER_BYTES, LONG_HEADER_BYTES
from gpuzip.storage.info import FileInfo
from gpuzip.storage.streams import Source, Target

__all__ = [
    "FORMAT",
    "HEADER_BYTES",
    "LONG_HEADER_BYTES",
    "MANIFEST_BYTES",
    "ArchiveContents",
    "Contents",
    "FileInfo",
    "Source",
    "Target",
    "check_target",
    "local_target",
    "read_codes",
    "read_file",
    "read_info",
    "table_bytes",
    "write_archive",
    "write_codes",
]
