"""Sources larger than memory, compressed chunk by chunk to a file or a dataset."""

from gpuzip.large.compressed import Compressed
from gpuzip.large.compressing import compress_file

__all__ = ["Compressed", "compress_file"]
