"""Rows that are larger than memory: compressed to 48 bytes a row, searched, and read one by one.

    python -m bench.large [--rows 200000]

Each task runs in a process of its own. `compress` and `search` are held against all that is resident, pages
of mapped files too; `row` is what the disk is asked for where a store is opened and one row of it is read,
after the system has dropped the file from its memory. A full run writes bench/results/large.csv; the exit
status is 1 when a task takes more than its limit.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gpuzip
from bench import apart
from bench.data import D, made_blocks, sample
from bench.measure import timed
from bench.record import main
from gpuzip.interop.matrices import write_matrix

ROWS = 5_000_000
CODEC = "PQ48x8"
LIMITS = {"compress": 1_500_000_000, "search": 1_000_000_000}

_QUERIES, _STORED, _ROW = 256, 500_000, 0.7  # queries; most rows of a store of `row`; which of them is read
_PATIENCE = 1800.0  # seconds of a task


def _make(path: Path, rows: int) -> None:
    """An npy of so many rows."""
    with open(path, "wb") as out:
        about = {"descr": "<f4", "fortran_order": False, "shape": (rows, D)}
        np.lib.format.write_array_header_1_0(out, about)
        for block in made_blocks(rows):
            out.write(block.numpy().data)


def _resident(name: str) -> int:
    """Bytes of this process: VmRSS, or the most so far, VmHWM."""
    _, _, rest = Path("/proc/self/status").read_text(encoding="utf-8").partition(f"{name}:")
    return 1024 * int(rest.split()[0])


def _compress(folder: Path) -> dict[str, Any]:
    done, seconds = timed(lambda: gpuzip.compress_file(folder / "x.npy", folder / "data", CODEC))
    shares = {name: value / seconds for name, value in done.seconds.items()}
    return {"seconds": seconds, "rows_per_second": done.n / seconds, "file_bytes": done.nbytes} | shares


def _search(folder: Path) -> dict[str, Any]:
    data = gpuzip.Dataset.open(folder / "data")
    _, seconds = timed(lambda: data.search(sample().queries[:_QUERIES], 10))
    return {"seconds": seconds, "file_bytes": data.nbytes}


TASKS = {"compress": _compress, "search": _search}


def _measured(order: tuple[str, Path]) -> dict[str, Any]:
    """A task, in a process of its own."""
    task, folder = order
    found = TASKS[task](folder)
    return found | {"peak_bytes": _resident("VmHWM")}


# Stores of rows of which one is read: a function that writes one, and one that opens it and returns a reader.
def _write_file(folder: Path, x: Any, codes: Any) -> None:
    codes.save(folder / "codes.ezip")


def _read_file(folder: Path) -> Callable[[int], Any]:
    codes = gpuzip.open(folder / "codes.ezip")
    return lambda row: codes.rows([row])


def _write_dataset(folder: Path, x: Any, codes: Any) -> None:
    data = gpuzip.Dataset.create(folder / "dataset", codes.codec)
    for start in range(0, len(codes), 1 << 18):
        data.append(codes[start : start + (1 << 18)])


def _read_dataset(folder: Path) -> Callable[[int], Any]:
    data = gpuzip.Dataset.open(folder / "dataset")
    return lambda row: data.rows([row])


def _write_faiss(folder: Path, x: Any, codes: Any) -> None:
    import faiss

    faiss.write_index(gpuzip.to_faiss(codes), str(folder / "codes.faiss"))


def _read_faiss(folder: Path) -> Callable[[int], Any]:
    import faiss

    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    index = faiss.read_index(str(folder / "codes.faiss"), flag)
    return lambda row: index.reconstruct(row)


def _write_npy(folder: Path, x: Any, codes: Any) -> None:
    np.save(folder / "rows.npy", x)


def _read_npy(folder: Path) -> Callable[[int], Any]:
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    return lambda row: np.array(rows[row])


def _write_safetensors(folder: Path, x: Any, codes: Any) -> None:
    write_matrix(folder / "rows.safetensors", x)


def _read_safetensors(folder: Path) -> Callable[[int], Any]:
    from safetensors import safe_open

    rows = safe_open(folder / "rows.safetensors", "pt").get_slice("x")
    return lambda row: rows[row : row + 1]


def _write_lance(folder: Path, x: Any, codes: Any) -> None:
    import lance
    import pyarrow as pa

    kind = pa.list_(pa.float32(), D)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(x).reshape(-1)), type=kind)
    lance.write_dataset(pa.table({"x": column}), folder / "rows.lance")


def _read_lance(folder: Path) -> Callable[[int], Any]:
    import lance

    rows = lance.dataset(folder / "rows.lance")
    return lambda row: rows.take([row])


STORES: dict[str, tuple[Callable[..., None], Callable[[Path], Callable[[int], Any]], str]] = {
    "gpuzip file": (_write_file, _read_file, CODEC),
    "gpuzip Dataset": (_write_dataset, _read_dataset, CODEC),
    "faiss.read_index, mapped": (_write_faiss, _read_faiss, CODEC),
    "np.load(mmap_mode)": (_write_npy, _read_npy, "float32"),
    "safetensors": (_write_safetensors, _read_safetensors, "float32"),
    "Lance": (_write_lance, _read_lance, "float32"),
}


def _stored(folder: Path) -> None:
    """Write all stores, in a process of its own."""
    x = np.load(folder / "x.npy", mmap_mode="r")[:_STORED]
    codes = gpuzip.Dataset.open(folder / "data").codec.encode(x)
    for name, (write, _, _) in STORES.items():
        if _is_here(name):
            write(folder, x, codes)
    os.sync()


def _is_here(name: str) -> bool:
    return name != "Lance" or find_spec("lance") is not None


def _drop(folder: Path) -> None:
    """Ask the system to forget the pages of all files."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _from_disk() -> int:
    """Bytes that this process has caused to be read from disks so far."""
    _, _, rest = Path("/proc/self/io").read_text(encoding="utf-8").partition("read_bytes:")
    return int(rest.split()[0])


def _one_row(order: tuple[str, Path, int]) -> dict[str, Any]:
    """What a store reads to open and for a row, and for another row far from it; in a process of its own."""
    name, folder, rows = order
    read = STORES[name][1]
    with suppress(ImportError):
        read(folder)(0)  # libraries are read now
    _drop(folder)
    start = _from_disk()
    row, seconds = timed(lambda: read(folder)(int(rows * _ROW)))
    first = _from_disk()
    reader = read(folder)
    reader(0)
    opened = _from_disk()
    reader(int(rows * _ROW / 2))
    assert torch.as_tensor(np.asarray(row) if name != "Lance" else np.ones(1)).numel()
    return {"seconds": seconds, "row_bytes": first - start, "next_bytes": _from_disk() - opened}


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    rows = few or ROWS
    empty = {"rows_per_second": None, "file_bytes": None, "peak_bytes": None, "limit_bytes": None}
    empty |= {"reading": None, "training": None, "encoding": None, "writing": None}
    empty |= {"row_bytes": None, "next_bytes": None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder / "x.npy", rows)
        for task in TASKS:
            about = {"task": task, "store": "gpuzip Dataset", "codec": CODEC, "rows": rows, "d": D}
            found = _answer(_measured, (task, folder))
            ok = found["peak_bytes"] <= LIMITS[task]
            yield about | empty | {"limit_bytes": LIMITS[task]} | found | {"ok": ok}
        _answer(_stored, folder, none=True)
        for store, (_, _, codec) in STORES.items():
            if _is_here(store):
                stored = min(rows, _STORED)
                about = {"task": "row", "store": store, "codec": codec, "rows": stored, "d": D}
                yield about | empty | _answer(_one_row, (store, folder, stored)) | {"ok": None}


def _answer(call: Callable[[Any], Any], order: Any, none: bool = False) -> Any:
    (answer,) = apart.each(call, [order], _PATIENCE)
    if answer.result is None and (not none or answer.death):
        raise RuntimeError(f"{call.__name__} of {order}: {answer.death}")
    return answer.result


if __name__ == "__main__":
    sys.exit(main("large", __doc__, measure))
