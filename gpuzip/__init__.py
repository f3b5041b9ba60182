"""GPU-accelerated compression of embedding vectors: 4x to 100x smaller, still searchable."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from gpuzip._core.collecting import collection_paused as _collection_paused

with _collection_paused():
    from gpuzip._core.quality import HeldOut, Quality, recall
    from gpuzip._version import __version__
    from gpuzip.api import compress, info, load, load_codec, open, open_mixed, pareto, quantize, save
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
    from gpuzip.errors import (
        DtypeError,
        FormatError,
        GpuzipError,
        MissingDependencyError,
        NotFittedError,
        QualityError,
        UnknownCodecError,
    )
    from gpuzip.rotations import Rotation
    from gpuzip.search.result import SearchResult
    from gpuzip.similar import most_similar
    from gpuzip.storage import FileInfo

if _TYPE_CHECKING:
    from gpuzip import nn, plots
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
    from gpuzip.words import WordVectors

__all__ = [
    "BinaryQuantizer",
    "Codec",
    "Codes",
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
    "UnknownCodecError",
    "WordVectors",
    "__version__",
    "cat",
    "compress",
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
]


#: Modules and functions that are imported when they are first asked for: most programs need none of them.
_LAZY = {
    "nn": "gpuzip.nn",
    "plots": "gpuzip.plots",
    "words": "gpuzip.words",
    "WordVectors": "gpuzip.words",
    **dict.fromkeys(("from_faiss", "to_faiss"), "gpuzip.interop.faiss"),
    **dict.fromkeys(("from_usearch", "to_usearch"), "gpuzip.interop.usearch"),
    **dict.fromkeys(("from_arrow", "to_arrow"), "gpuzip.interop.arrow"),
    **dict.fromkeys(("from_hub", "push_to_hub"), "gpuzip.interop.hub"),
    **dict.fromkeys(("from_milvus", "to_milvus"), "gpuzip.interop.milvus"),
    **dict.fromkeys(("from_qdrant", "to_qdrant"), "gpuzip.interop.qdrant"),
    **dict.fromkeys(("from_datasets", "to_datasets"), "gpuzip.interop.datasets"),
    **dict.fromkeys(("from_lance", "to_lance"), "gpuzip.interop.lance"),
    **dict.fromkeys(("from_duckdb", "to_duckdb"), "gpuzip.interop.duckdb"),
    **dict.fromkeys(("from_sqlite_vec", "to_sqlite_vec"), "gpuzip.interop.sqlite_vec"),
    **dict.fromkeys(("from_pgvector", "to_pgvector"), "gpuzip.interop.pgvector"),
    **dict.fromkeys(
        ("from_sentence_transformers", "quantize_embeddings", "semantic_search", "to_sentence_transformers"),
        "gpuzip.interop.sentence_transformers",
    ),
}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'gpuzip' has no attribute {name!r}")
    module = _import_module(_LAZY[name])
    return module if module.__name__ == f"gpuzip.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY})
