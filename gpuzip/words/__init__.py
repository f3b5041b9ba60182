"""Compressed word vectors: file readers, queries by word, and .sfry folders."""

from collections.abc import Callable

from gpuzip.words.vectors import WordVectors

load: Callable[..., WordVectors] = WordVectors.load

__all__ = ["WordVectors", "load"]
