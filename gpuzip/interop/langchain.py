"""A vector store of LangChain whose vectors are compressed. Needs langchain-core."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from gpuzip.codecs import Quantizer
from gpuzip.interop._store import Entry, Store


class GpuzipVectorStore(VectorStore):  # type: ignore[misc]
    """Keep documents with compressed vectors, in memory and in a folder. Scores are cosines.

    `filter=` of a search is a function of a Document, or a dict of metadata that must be equal; metadata is
    JSON. codec: of the vectors, default ScalarQuantizer(8). One that is not fitted is fitted when there are
    `fit_after` documents, whose vectors are float16 until then.
    """

    def __init__(self, embedding: Embeddings, codec: Quantizer | None = None, fit_after: int = 1000) -> None:
        self._embedding, self._store = embedding, Store(codec, fit_after)

    @property
    def embeddings(self) -> Embeddings:
        """What turns texts into vectors."""
        return self._embedding

    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> list[str]:
        """Embed and add texts. ids=: one per text; a text replaces the one that has its id. Returns ids."""
        texts = list(texts)
        ids = [id or str(uuid.uuid4()) for id in kwargs.get("ids") or [""] * len(texts)]
        pairs = zip(texts, metadatas or [{} for _ in texts], strict=True)
        entries = [{"text": text, "metadata": metadata} for text, metadata in pairs]
        self._store.add(ids, self._embedding.embed_documents(texts), entries)
        return ids

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, or all of them. Unknown ids are ignored."""
        self._store.delete(list(self._store.entries) if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of the ids that are known, in that order."""
        return [_document(id, self._store.entries[id]) for id in ids if id in self._store.entries]

    def _near(
        self, vector: list[float], k: int, filter: Any = None, **_: Any
    ) -> list[tuple[Document, float]]:
        hits = self._store.search(vector, k, "cosine", _accepts(filter))
        return [(_document(id, self._store.entries[id]), score) for id, score in hits]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the k documents whose vectors are nearest to that of a text."""
        return self.similarity_search_by_vector(self._embedding.embed_query(query), k, **kwargs)

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their cosines, best first."""
        return self._near(self._embedding.embed_query(query), k, **kwargs)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Return the k documents whose vectors are nearest to a vector."""
        return [document for document, _ in self._near(embedding, k, **kwargs)]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1 + cosine) / 2

    def max_marginal_relevance_search(self, query: str, *args: Any, **kwargs: Any) -> list[Document]:
        """Return k of the fetch_k documents nearest to a text, which differ from each other."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, *args, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return k of the fetch_k documents nearest to a vector, which differ from each other."""
        near = self.similarity_search_by_vector(embedding, fetch_k, **kwargs)
        if not near:
            return []
        rows = list(self._store.rows([document.id for document in near]).numpy())
        return [near[i] for i in maximal_marginal_relevance(np.array(embedding), rows, lambda_mult, k)]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> GpuzipVectorStore:
        """Return a store of texts. **kwargs: `ids`, and those of the class."""
        ids = kwargs.pop("ids", None)
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder, or replace one that `save` wrote as a whole."""
        self._store.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], embedding: Embeddings) -> GpuzipVectorStore:
        """Read a folder that `save` wrote. Raises FormatError if it is damaged."""
        store = cls(embedding)
        store._store = Store.load(path)
        return store


def _document(id: str, entry: Entry) -> Document:
    return Document(id=id, page_content=entry["text"], metadata=entry["metadata"].copy())


def _accepts(filter: Any) -> Callable[[str, Entry], bool]:
    if callable(filter):
        return lambda id, entry: bool(filter(_document(id, entry)))
    return lambda _, entry: (filter or {}).items() <= entry["metadata"].items()
