"""Files of codes: written whole or not at all, checked before they are believed."""

from gpuzip.storage.file import Contents, check_target, read_codes, read_info, write_codes
from gpuzip.storage.header import FORMAT
from gpuzip.storage.info import FileInfo

__all__ = ["FORMAT", "Contents", "FileInfo", "check_target", "read_codes", "read_info", "write_codes"]
