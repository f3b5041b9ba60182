"""Compressed embeddings as torch modules."""

from gpuzip.nn.bag import QuantizedEmbeddingBag
from gpuzip.nn.embedding import QuantizedEmbedding

__all__ = ["QuantizedEmbedding", "QuantizedEmbeddingBag"]
