"""Compressed embeddings as torch modules."""

from gpuzip.nn.bag import QuantizedEmbeddingBag
from gpuzip.nn.embedding import QuantizedEmbedding
from gpuzip.nn.load import load_compressed
from gpuzip.nn.models import quantize_embeddings_
from gpuzip.nn.report import Report

__all__ = ["QuantizedEmbedding", "QuantizedEmbeddingBag", "Report", "load_compressed", "quantize_embeddings_"]
