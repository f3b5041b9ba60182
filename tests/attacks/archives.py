"""Mutated archives of every scheme, read as `mutations.py` reads files of codecs.

`python -m tests.attacks.archives COUNT SEED` prints the outcomes as JSON.
"""

import functools
import io
import json
import random
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import gpuzip
from tests.attacks.forge import Forgery
from tests.attacks.mutations import LIMIT, READERS, Tally, mutated, sealed_again

#: Bytes that a reading may take: 4 million values are decoded at a time, and equal rows take hardly any
#: bytes, so that a header may say that a block has many.
ROOM = 128 << 20


def rows_of(count: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(0))


@functools.cache
def files() -> dict[str, bytes]:
    """A file of each scheme; dictionaries are found in memory by `dictionary`."""
    x = rows_of(100)
    huge = torch.cat([x, torch.full((1, 16), 1e12)])
    settings: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {
        "transform": (x, {"max_row_error": 0.5}),
        "kept": (huge, {"max_row_error": 0.5}),
        "dictionary": (x, {"max_row_error": 0.5, "dictionary": dictionary()}),
        "grid": (x, {"max_error": 0.01}),
        "lossless": (x.half(), {"lossless": True}),
        "repeats": (x[:9].repeat(20, 1), {"lossless": True}),
    }
    found = {}
    for name, (rows, own) in settings.items():
        out = io.BytesIO()
        gpuzip.TransformCoder(block_rows=32, **own).fit(rows).encode(rows).save(out, rows)
        found[name] = out.getvalue()
    return found


@functools.cache
def dictionary() -> gpuzip.Dictionary:
    return gpuzip.train_dictionary(rows_of(300))


def load(path: Path) -> torch.Tensor:
    return gpuzip.open(path, dictionary=dictionary()).decode()


def load_rows(path: Path) -> torch.Tensor:
    archive = gpuzip.open(path, dictionary=dictionary())
    return archive.rows(range(len(archive)))


def in_parts(number: random.Random, data: bytes) -> bytes:
    """Some bytes of the model, the stream or the table of blocks changed, with checksums that are right."""
    forgery = Forgery.of(data)
    name = number.choice(["model", "model", "stream", "blocks", *forgery.tensors])
    dtype, shape, raw = forgery.tensors[name]
    changed = mutated(number, raw, data)[: len(raw)].ljust(len(raw), b"\0")
    forgery.tensors[name] = (dtype, shape, changed)
    return forgery.bytes()


def run(count: int, seed: int) -> dict[str, Any]:
    """Mutate and read, with the memory of this process limited from here on."""
    torch.set_num_threads(1)
    generator, originals = random.Random(seed), files()
    right = {name: gpuzip.open(data, dictionary=dictionary()).decode() for name, data in originals.items()}
    readers = [load, load, load_rows, *READERS]
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "first.ezip")
        for data in originals.values():  # what a first call takes is not counted
            first.write_bytes(data)
            for reader in readers:
                Tally().read("first", first, 0, reader, None)
        tally = Tally(ROOM)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT,) * 2)
        for at in range(count):
            name = generator.choice(list(originals))
            kind = ("mutated", "sealed again", "in parts")[at % 3]
            data = originals[name]
            if kind == "mutated":
                data = mutated(generator, data, originals[generator.choice(list(originals))])
            else:
                data = (sealed_again if kind == "sealed again" else in_parts)(generator, data)
            path = Path(folder, f"{name}-{at}.ezip")
            path.write_bytes(data)
            tally.read(kind, path, len(data), generator.choice(readers), right[name] if at % 3 == 0 else None)
            path.unlink()
    return {"counts": tally.counts, "worst": tally.worst, "wrong": tally.wrong[:20]}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
