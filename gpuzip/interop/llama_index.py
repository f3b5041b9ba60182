"""A vector store of LlamaIndex whose vectors are compressed. Needs llama-index-core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import (
    build_metadata_filter_fn,
    metadata_dict_to_node,
    node_to_metadata_dict,
)

from gpuzip.codecs import Quantizer
from gpuzip.errors import GpuzipError
from gpuzip.interop._store import Entry, Store


class GpuzipVectorStore(BasePydanticVectorStore):  # type: ignore[misc]
    """Keep nodes with compressed vectors, in memory and in a folder. Scores are cosines.

    codec: of the vectors, default ScalarQuantizer(8). One that is not fitted is fitted when there are
    `fit_after` nodes, whose vectors are float16 until then. Metadata is JSON. Queries are "default" or "mmr".
    """

    stores_text: bool = True
    flat_metadata: bool = False
    _store: Store = PrivateAttr()

    def __init__(self, codec: Quantizer | None = None, fit_after: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._store = Store(codec, fit_after)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in LlamaIndex's files."""
        return "GpuzipVectorStore"

    @property
    def client(self) -> Any:
        """The rows."""
        return self._store

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes that have embeddings; a node replaces the one that has its id. Returns the ids."""
        ids, rows = [node.node_id for node in nodes], [node.get_embedding() for node in nodes]
        self._store.add(ids, rows, [node_to_metadata_dict(node, flat_metadata=False) for node in nodes])
        return ids

    def delete(self, ref_doc_id: str, **kwargs: Any) -> None:
        """Delete the nodes of a document."""
        entries = self._store.entries
        self._store.delete([id for id, entry in entries.items() if entry["ref_doc_id"] == ref_doc_id])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> None:
        """Delete nodes by id, by metadata or by both."""
        accepts = self._accepts(node_ids, filters)
        self._store.delete([id for id, entry in self._store.entries.items() if accepts(id, entry)])

    def clear(self) -> None:
        """Delete all nodes."""
        self._store.delete(list(self._store.entries))

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes by id, by metadata or by both."""
        accepts = self._accepts(node_ids, filters)
        return [metadata_dict_to_node(e) for id, e in self._store.entries.items() if accepts(id, e)]

    def _accepts(
        self, ids: list[str] | None, filters: MetadataFilters | None
    ) -> Callable[[str, Entry], bool]:
        wanted = None if ids is None else set(ids)
        matches = build_metadata_filter_fn(lambda id: self._store.entries[id], filters)
        return lambda id, _: (wanted is None or id in wanted) and bool(matches(id))

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nodes whose vectors are nearest to the query's, by its filters and node_ids."""
        store, vector, k = self._store, query.query_embedding, query.similarity_top_k
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR) or vector is None:
            raise GpuzipError(
                f"GpuzipVectorStore.query: mode must be 'default' or 'mmr', with an embedding; got "
                f"{query.mode.value!r}."
            )
        ids = query.node_ids or None  # LlamaIndex's retriever has [] for all
        if query.doc_ids:
            entries = store.entries.items()
            ids = [id for id, e in entries if e["ref_doc_id"] in query.doc_ids and (ids is None or id in ids)]
        accepts = self._accepts(ids, query.filters)
        is_mmr = query.mode == VectorStoreQueryMode.MMR
        hits = store.search(vector, kwargs.get("mmr_prefetch_k", 4 * k) if is_mmr else k, "cosine", accepts)
        if is_mmr and hits:
            ids, threshold = [id for id, _ in hits], kwargs.get("mmr_threshold", query.mmr_threshold)
            values, chosen = get_top_k_mmr_embeddings(
                vector, store.rows(ids).tolist(), None, k, ids, mmr_threshold=threshold
            )
            hits = list(zip(chosen, values, strict=True))
        nodes = [metadata_dict_to_node(store.entries[id]) for id, _ in hits]
        return VectorStoreQueryResult(nodes, [score for _, score in hits], [id for id, _ in hits])

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Write a folder, or replace one that `persist` wrote as a whole. fs must be local."""
        self._store.save(Path(persist_path))

    @classmethod
    def from_persist_path(cls, persist_path: str, fs: Any = None) -> GpuzipVectorStore:
        """Read a folder that `persist` wrote. Raises FormatError if it is damaged."""
        store = cls()
        store._store = Store.load(Path(persist_path))
        return store
