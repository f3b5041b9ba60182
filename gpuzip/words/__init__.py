"""Compressed word vectors: file readers, queries by word, and .sfry folders."""

from gpuzip.words.vectors import WordVectors

load = WordVectors.load

__all__ = ["WordVectors", "load"]
