"""GPU-accelerated compression of embedding vectors: 4x to 100x smaller, still searchable."""

from gpuzip._version import __version__
from gpuzip.api import compress, info, load, open, quantize, save
from gpuzip.codecs import ProductQuantizer
from gpuzip.codes import Codes, cat
from gpuzip.errors import (
    DtypeError,
    FormatError,
    GpuzipError,
    MissingDependencyError,
    NotFittedError,
    UnknownCodecError,
)
from gpuzip.interop.faiss import from_faiss, to_faiss
from gpuzip.quality import Quality, recall
from gpuzip.storage import FileInfo

__all__ = [
    "Codes",
    "DtypeError",
    "FileInfo",
    "FormatError",
    "GpuzipError",
    "MissingDependencyError",
    "NotFittedError",
    "ProductQuantizer",
    "Quality",
    "UnknownCodecError",
    "__version__",
    "cat",
    "compress",
    "from_faiss",
    "info",
    "load",
    "open",
    "quantize",
    "recall",
    "save",
    "to_faiss",
]
