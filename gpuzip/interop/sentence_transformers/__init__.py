"""sentence-transformers' quantized arrays, byte for byte, and a search that decodes them."""

from gpuzip.interop.sentence_transformers.arrays import (
    from_sentence_transformers,
    quantize_embeddings,
    to_sentence_transformers,
)
from gpuzip.interop.sentence_transformers.search import semantic_search

__all__ = [
    "from_sentence_transformers",
    "quantize_embeddings",
    "semantic_search",
    "to_sentence_transformers",
]
