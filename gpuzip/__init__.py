"""GPU-accelerated compression of embedding vectors: 4x to 100x smaller, still searchable."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from gpuzip._version import __version__

if _TYPE_CHECKING:
    from gpuzip import nn, plots
    from gpuzip._core.quality import HeldOut, Quality, recall
    from gpuzip.api import compress, info, load, load_codec, open, open_mixed, pareto, quantize, save
    from gpuzip.archive.archive import Archive
    from gpuzip.archive.coder import TransformCoder
    from gpuzip.archive.dictionary import Dictionary, train_dictionary
    from gpuzip.codecs import (
        BinaryQuantizer,
        Codec,
        HalfQuantizer,
        LloydMaxQuantizer,
        MixedLloydMaxQuantizer,
        ProductQuantizer,
        Quantizer,
        RaBitQuantizer,
        ResidualQuantizer,
        ScalarQuantizer,
        from_spec,
        register_codec,
    )
    from gpuzip.codecs.codes import Codes
    from gpuzip.codecs.drift import Drift
    from gpuzip.codecs.mixed import MixedCodes, cat
    from gpuzip.dataset import Dataset
    from gpuzip.errors import (
        DtypeError,
        FormatError,
        GpuzipError,
        MissingDependencyError,
        NotFittedError,
        QualityError,
        UnknownCodecError,
    )
    from gpuzip.interop.arrow import from_arrow, to_arrow
    from gpuzip.interop.datasets import from_datasets, to_datasets
    from gpuzip.interop.duckdb import from_duckdb, to_duckdb
    from gpuzip.interop.faiss import from_faiss, to_faiss
    from gpuzip.interop.hub import from_hub, push_to_hub
    from gpuzip.interop.lance import from_lance, to_lance
    from gpuzip.interop.milvus import from_milvus, to_milvus
    from gpuzip.interop.pgvector import from_pgvector, to_pgvector
    from gpuzip.interop.qdrant import from_qdrant, to_qdrant
    from gpuzip.interop.sentence_transformers import (
        from_sentence_transformers,
        quantize_embeddings,
        semantic_search,
        to_sentence_transformers,
    )
    from gpuzip.interop.sqlite_vec import from_sqlite_vec, to_sqlite_vec
    from gpuzip.interop.usearch import from_usearch, to_usearch
    from gpuzip.large import Compressed, compress_file
    from gpuzip.reports import report
    from gpuzip.rotations import Rotation
    from gpuzip.search.result import SearchResult
    from gpuzip.similar import most_similar
    from gpuzip.storage import FileInfo
    from gpuzip.words import WordVectors

__all__ = [
    "Archive",
    "BinaryQuantizer",
    "Codec",
    "Codes",
    "Compressed",
    "Dataset",
    "Dictionary",
    "Drift",
    "DtypeError",
    "FileInfo",
    "FormatError",
    "GpuzipError",
    "HalfQuantizer",
    "HeldOut",
    "LloydMaxQuantizer",
    "MissingDependencyError",
    "MixedCodes",
    "MixedLloydMaxQuantizer",
    "NotFittedError",
    "ProductQuantizer",
    "Quality",
    "QualityError",
    "Quantizer",
    "RaBitQuantizer",
    "ResidualQuantizer",
    "Rotation",
    "ScalarQuantizer",
    "SearchResult",
    "TransformCoder",
    "UnknownCodecError",
    "WordVectors",
    "__version__",
    "cat",
    "compress",
    "compress_file",
    "from_arrow",
    "from_datasets",
    "from_duckdb",
    "from_faiss",
    "from_hub",
    "from_lance",
    "from_milvus",
    "from_pgvector",
    "from_qdrant",
    "from_sentence_transformers",
    "from_spec",
    "from_sqlite_vec",
    "from_usearch",
    "info",
    "load",
    "load_codec",
    "most_similar",
    "nn",
    "open",
    "open_mixed",
    "pareto",
    "plots",
    "push_to_hub",
    "quantize",
    "quantize_embeddings",
    "recall",
    "register_codec",
    "report",
    "save",
    "semantic_search",
    "to_arrow",
    "to_datasets",
    "to_duckdb",
    "to_faiss",
    "to_lance",
    "to_milvus",
    "to_pgvector",
    "to_qdrant",
    "to_sentence_transformers",
    "to_sqlite_vec",
    "to_usearch",
    "train_dictionary",
]


#: Where each name comes from. It is imported when it is first asked for, so that `import gpuzip` and
#: `gpuzip --help` take milliseconds: torch alone takes a second.
_HOMES = {
    "gpuzip._core.quality": ("HeldOut", "Quality", "recall"),
    "gpuzip.api": (
        "compress",
        "info",
        "load",
        "load_codec",
        "open",
        "open_mixed",
        "pareto",
        "quantize",
        "save",
    ),
    "gpuzip.archive.archive": ("Archive",),
    "gpuzip.archive.coder": ("TransformCoder",),
    "gpuzip.archive.dictionary": ("Dictionary", "train_dictionary"),
    "gpuzip.codecs": (
        "BinaryQuantizer",
        "Codec",
        "HalfQuantizer",
        "LloydMaxQuantizer",
        "MixedLloydMaxQuantizer",
        "ProductQuantizer",
        "Quantizer",
        "RaBitQuantizer",
        "ResidualQuantizer",
        "ScalarQuantizer",
        "from_spec",
        "register_codec",
    ),
    "gpuzip.codecs.codes": ("Codes",),
    "gpuzip.codecs.drift": ("Drift",),
    "gpuzip.codecs.mixed": ("MixedCodes", "cat"),
    "gpuzip.dataset": ("Dataset",),
    "gpuzip.errors": (
        "DtypeError",
        "FormatError",
        "GpuzipError",
        "MissingDependencyError",
        "NotFittedError",
        "QualityError",
        "UnknownCodecError",
    ),
    "gpuzip.interop.arrow": ("from_arrow", "to_arrow"),
    "gpuzip.interop.datasets": ("from_datasets", "to_datasets"),
    "gpuzip.interop.duckdb": ("from_duckdb", "to_duckdb"),
    "gpuzip.interop.hub": ("from_hub", "push_to_hub"),
    "gpuzip.interop.lance": ("from_lance", "to_lance"),
    "gpuzip.interop.milvus": ("from_milvus", "to_milvus"),
    "gpuzip.interop.pgvector": ("from_pgvector", "to_pgvector"),
    "gpuzip.interop.qdrant": ("from_qdrant", "to_qdrant"),
    "gpuzip.interop.sqlite_vec": ("from_sqlite_vec", "to_sqlite_vec"),
    "gpuzip.large": ("Compressed", "compress_file"),
    "gpuzip.reports": ("report",),
    "gpuzip.interop.faiss": ("from_faiss", "to_faiss"),
    "gpuzip.interop.sentence_transformers": (
        "from_sentence_transformers",
        "quantize_embeddings",
        "semantic_search",
        "to_sentence_transformers",
    ),
    "gpuzip.interop.usearch": ("from_usearch", "to_usearch"),
    "gpuzip.rotations": ("Rotation",),
    "gpuzip.search.result": ("SearchResult",),
    "gpuzip.similar": ("most_similar",),
    "gpuzip.storage": ("FileInfo",),
    "gpuzip.words": ("WordVectors",),
}

_HOME = {name: module for module, names in _HOMES.items() for name in names}

#: Modules that are attributes without an import of their own.
_MODULES = {
    *("api", "choose", "codecs", "errors", "interop", "nn", "ops", "plots", "rotations", "search", "similar"),
    *("dataset", "distributed", "storage", "training", "words"),
}


def __getattr__(name: str) -> _Any:
    if name not in _HOME and name not in _MODULES:
        raise AttributeError(f"module 'gpuzip' has no attribute {name!r}")
    from gpuzip._core.collecting import collection_paused

    with collection_paused():
        if name in _MODULES:
            return _import_module(f"gpuzip.{name}")
        value = globals()[name] = getattr(_import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "words"})
