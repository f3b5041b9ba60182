"""The facts of a dataset, from its manifest."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from gpuzip._core.checks import printable
from gpuzip._core.tables import html_table
from gpuzip.dataset.view import View


@dataclass(frozen=True)
class DatasetInfo:
    """Hold the facts of a dataset. print() shows them.

    Attributes
    ----------
    path : Path
        The folder.
    n, d : int
        Rows that are not removed, and their columns.
    codec : str
        The codec, as the call that makes it.
    dtype : torch.dtype
        Dtype in which rows are decoded.
    ids : str or None
        "int64", "string", or None where rows number themselves.
    columns : dict of str to str
        Arrow type by name of column.
    shards : int
        Number of shards.
    removed : int
        Rows that are removed and still in the files, until `compact`.
    nbytes : int
        Bytes of all files of this state.
    ratio : float
        Bytes of the source rows over `nbytes`.
    generation : int
        Number of this state; every write adds 1.
    """

    path: Path
    n: int
    d: int
    codec: str
    dtype: torch.dtype
    ids: str | None
    columns: dict[str, str]
    shards: int
    removed: int
    nbytes: int
    ratio: float
    generation: int

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        return html_table((), self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown["path"] = printable(self.path.name)
        shown["columns"] = ", ".join(map(printable, self.columns)) or "none"
        shown["ids"] = self.ids or "numbered"
        shown["ratio"] = f"{self.ratio:.2f}"
        return [(name, str(value)) for name, value in shown.items()]


def nbytes_of(view: View) -> int:
    """Bytes of all files of a state, each counted once, and of the manifest."""
    files = {member.name: member.bytes for member in view.manifest.members}
    return sum(files.values()) + (len(view.manifest.text()))


def info_of(view: View) -> DatasetInfo:
    manifest, n, d = view.manifest, len(view), view.codec.d
    dtype = getattr(torch, manifest.dtype)
    nbytes = nbytes_of(view)
    return DatasetInfo(
        path=view.folder,
        n=n,
        d=d,
        codec=repr(view.codec),
        dtype=dtype,
        ids=manifest.ids,
        columns=dict(manifest.columns or {}),
        shards=len(view.shards),
        removed=sum(shard.entry.removed for shard in view.shards),
        nbytes=nbytes,
        ratio=n * d * dtype.itemsize / nbytes,
        generation=manifest.generation,
    )
