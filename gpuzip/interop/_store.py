"""Rows with ids, texts and metadata: what the vector stores of other libraries have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric, whole
from gpuzip.api import load_codec
from gpuzip.api import open as open_codes
from gpuzip.codecs import HalfQuantizer, Quantizer, ScalarQuantizer, from_spec
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import cat
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.folder import Folder, read_folder, write_folder

Entry = dict[str, Any]
_KIND = "store"


class Store:
    """Hold compressed rows and a JSON object for each, by id, in the order in which they were added.

    codec: a codec, fitted or not; None for ScalarQuantizer(8). One that is not fitted is fitted when there
    are `fit_after` rows: they are kept as float16 until then. A fitted codec encodes rows as they are added.
    """

    def __init__(self, codec: Quantizer | None = None, fit_after: int = 1000) -> None:
        codec = ScalarQuantizer(bits=8) if codec is None else codec
        if not isinstance(codec, Quantizer):
            raise GpuzipError(f"Store: codec must be a codec such as ScalarQuantizer(8); got {codec!r}.")
        self.codec, self.fit_after = codec, whole("Store", "fit_after", fit_after)
        self.entries: dict[str, Entry] = {}
        self._parts: list[Codes] = []

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def codes(self) -> Codes | None:
        """The rows, in the order of `entries`; None if there are none."""
        if len(self._parts) > 1:
            self._parts = [cat(self._parts)]
        return self._parts[0] if self._parts else None

    def add(self, ids: Sequence[str], rows: Any, entries: Sequence[Entry]) -> None:
        """Add (N, D) rows with a JSON object each. A row replaces one of the same id; the last one stays."""
        last = {id: place for place, id in enumerate(ids)}
        if not len(ids) == len(rows) == len(entries):
            raise GpuzipError(
                f"Store.add: ids and entries must be {len(rows)}, one per row; got {len(ids)} and "
                f"{len(entries)}."
            )
        if not last:
            return
        x = np.asarray(rows, dtype=np.float32)[list(last.values())]
        fresh = (self.codec if self.codec.is_fitted else HalfQuantizer().fit(x)).encode(x)
        if self._parts and fresh.shape[1] != self._parts[0].shape[1]:
            raise GpuzipError(
                f"Store.add: rows must have {self._parts[0].shape[1]} columns, as those that are stored; got "
                f"{fresh.shape[1]}. Embed them with the same model."
            )
        # What cannot be saved is refused here, and what is kept is what a file would give back.
        kept = {id: json.loads(json.dumps(entries[place], allow_nan=False)) for id, place in last.items()}
        self.delete(last)
        self._parts.append(fresh)
        self.entries |= kept
        self._fit()

    def _fit(self) -> None:
        if not self.codec.is_fitted and self.codes is not None and len(self) >= self.fit_after:
            x = self.codes.decode()
            self.codec = self.codec.fit_quietly(x)
            self._parts = [self.codec.encode(x)]

    def delete(self, ids: Iterable[str]) -> None:
        """Delete rows. Unknown ids are ignored."""
        gone = set(ids) & self.entries.keys()
        if not gone or self.codes is None:
            return
        kept = self.mask(lambda id, _: id not in gone)
        self.entries = {id: entry for id, entry in self.entries.items() if id not in gone}
        self._parts = [self.codes[kept]] if self.entries else []

    def mask(self, accepts: Callable[[str, Entry], bool] | None) -> Tensor:
        """Return (N,) bool: the rows that `accepts` takes by id and JSON object."""
        allowed = [accepts is None or bool(accepts(id, entry)) for id, entry in self.entries.items()]
        return torch.tensor(allowed, dtype=torch.bool, device="cpu")

    def search(
        self,
        query: Sequence[float],
        k: int,
        metric: SearchMetric,
        accepts: Callable[[str, Entry], bool] | None,
    ) -> list[tuple[str, float]]:
        """Return the ids and scores of the k nearest rows that `accepts` takes, best first."""
        mask = self.mask(accepts)
        found = min(whole("Store.search", "k", k, 0), int(mask.sum()))
        if self.codes is None or not found:
            return []
        values, rows = self.codes.search(
            torch.tensor(query, dtype=torch.float32, device="cpu"), found, metric, mask
        )
        ids = list(self.entries)
        return [(ids[row], value) for row, value in zip(rows.tolist(), values.tolist(), strict=True)]

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Return (R, D) decoded rows of known ids."""
        if self.codes is None:
            raise GpuzipError("Store.rows: ids must be in the store; it is empty.")
        places = {id: place for place, id in enumerate(self.entries)}
        return self.codes.rows([places[id] for id in ids])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder: codes as .ezip, ids and JSON objects as JSON lines. It is replaced as a whole."""
        spec = None if self.codec.is_fitted else self.codec.spec
        about = {"codec": spec, "fit_after": self.fit_after, "n": len(self)}
        writers: dict[str, Callable[[Path], object]] = {"entries.jsonl": self._write}
        if self.codes is not None:
            writers["codes.ezip"] = self.codes.save
        if spec is None:
            writers["codec.ezip"] = self.codec.save
        write_folder(path, _KIND, about, writers)

    def _write(self, path: Path) -> None:
        lines = (json.dumps([id, entry], allow_nan=False) + "\n" for id, entry in self.entries.items())
        with path.open("w", encoding="utf-8") as file:
            file.writelines(lines)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Store:
        """Read what `save` wrote. Raises FormatError for a folder that is damaged or holds something else."""
        return read_folder(path, _KIND, cls._read, verify=True)

    @classmethod
    def _read(cls, folder: Folder) -> Store:
        about = folder.about
        try:
            codec = from_spec(about["codec"]) if about["codec"] else load_codec(folder.file("codec.ezip"))
            assert isinstance(codec, Quantizer)
            store = cls(codec, about["fit_after"])
            lines = folder.file("entries.jsonl").read_text(encoding="utf-8").splitlines()
            store.entries = {str(id): dict(entry) for id, entry in map(json.loads, lines)}
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FormatError(f"{folder.path}: must hold a store; {error}. Restore the folder.") from error
        codes = [open_codes(folder.file("codes.ezip"))] if "codes.ezip" in folder.members else []
        store._parts = [part for part in codes if isinstance(part, Codes)]
        if len(store) != about.get("n") or len(store) != sum(map(len, store._parts)):
            raise FormatError(f"{folder.path}: must have a row per id. Restore the folder.")
        return store
