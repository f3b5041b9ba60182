"""Mutated files and folders, read in a process whose memory is limited.

`python -m tests.attacks.mutations COUNT SEED` mutates files of every codec, and manifests of folders, and
reads each by path, as bytes, by URL where fsspec is installed, and by rows. It prints the outcomes as JSON.

What is mutated as it is must be refused or give the right rows. What is sealed again, with checksums that
are right, must be refused or read: no codec can tell its rows from others. Nothing else may be raised, and no
reading may take more than twice the file and `ROOM`.
"""

import json
import random
import re
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gpuzip
from gpuzip.storage import folder as folders
from tests.attacks.forge import Forgery, canonical, fsspec, load_opened, load_remote, peak_growth
from tests.attacks.test_codecs import CODECS, file_of

ROOM = 24 << 20  # bytes; torch's own for a call, and a block of rows that is decoded
LIMIT = 1 << 30  # bytes of addresses beyond those of the process before it reads

Bytes = bytes
Reader = Callable[[Path], Tensor]


def load_rows(path: Path) -> Tensor:
    codes = gpuzip.open(path)
    return codes.rows(range(len(codes)))


def load_words(path: Path) -> Tensor:
    words = gpuzip.WordVectors.load(path, verify=True)
    assert words.index_of("word7") == 7
    return words.codes.decode()


READERS: list[Reader] = [gpuzip.load, load_opened, load_rows, *([load_remote] if fsspec else [])]

NUMBERS = [0, 1, 2, 7, 255, 256, 1 << 15, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    9,
    1 << 31,
    1 << 62,
    10**30,
    0.5,
    1e308,
    "",
    "pq",
    [],
    {},
    [1],
    [[]],
]


def mutated(random: random.Random, data: Bytes, other: Bytes) -> Bytes:
    """The bytes, changed in one to three ways."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = random.choice(_WAYS)(random, data, other)
    return data


def _flip(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    at = _place(random, data)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if data else data


def _cut(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    return data[: random.randrange(len(data) + 1)]


def _drop(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    at = _place(random, data)
    return data[:at] + data[at + random.choice((1, 4, 8, 100)) :]


def _insert(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    at = _place(random, data)
    return data[:at] + random.randbytes(random.choice((1, 4, 8, 100))) + data[at:]


def _repeat(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    start, length = _place(random, data), random.choice((1, 8, 300))
    return data[:start] + data[start : start + length] + data[start:]


def _splice(random: random.Random, data: Bytes, other: Bytes) -> Bytes:
    at, length = _place(random, data), random.choice((8, 100, 1000))
    return data[:at] + other[at : at + length] + data[at + length :]


def _number(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    at = random.choice((0, 8 * random.randrange(len(data) // 8 + 1)))
    return data[:at] + random.choice(NUMBERS).to_bytes(8, "little") + data[at + 8 :]


def _digits(random: random.Random, data: Bytes, _: Bytes) -> Bytes:
    """Another number in the JSON."""
    places = list(re.finditer(rb"\d+", data[:4000]))
    if not places:
        return data
    place = random.choice(places)
    return data[: place.start()] + str(random.choice(NUMBERS)).encode() + data[place.end() :]


_WAYS = [_flip, _flip, _cut, _drop, _insert, _repeat, _splice, _number, _digits, _digits]


def _place(random: random.Random, data: Bytes) -> int:
    """Anywhere, or as often in the header."""
    size = len(data) if random.random() < 0.5 else min(len(data), 2000)
    return random.randrange(size) if size else 0


def sealed_again(random: random.Random, data: Bytes) -> Bytes:
    """One to three settings or tensors changed, with checksums that are right."""
    forgery = Forgery.of(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        if random.random() < 0.6:
            inside, key = random.choice(list(_settings(forgery.header)))
            inside[key] = random.choice(VALUES)
        else:
            name = random.choice(list(forgery.tensors))
            dtype, shape, raw = forgery.tensors[name]
            change = random.randrange(3)
            if change == 0:
                raw = random.randbytes(len(raw))
            elif change == 1:
                shape = [random.choice([0, 1, 2, *shape]) for _ in range(random.randrange(4))]
            else:
                dtype = random.choice(["U8", "F16", "BF16", "F32"])
            size = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4}[dtype]
            for length in shape:
                size *= length
            if size > LIMIT // 2:  # the file itself would not fit
                continue
            forgery.tensors[name] = (dtype, shape, (raw * (size // max(1, len(raw)) + 1))[:size])
    try:
        return forgery.bytes()
    except ValueError:  # planes of different rows have no table
        forgery.own_table = True
        return forgery.bytes()


def _settings(header: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key in header:
        if key not in ("digest", "checksums"):
            yield header, key
            if isinstance(header[key], dict):
                yield from _settings(header[key])


def manifest_again(random: random.Random, text: Bytes) -> Bytes:
    """A manifest with one value changed, and its digest right."""
    manifest = json.loads(text)
    bare = {name: value for name, value in manifest.items() if name != "digest"}
    places = [(bare, key) for key in bare]
    places += [(bare["about"], key) for key in bare["about"]]
    places += [(entry, key) for entry in bare["files"].values() for key in entry]
    inside, key = random.choice(places)
    inside[key] = random.choice([*VALUES, "../../etc/passwd", "part-0-0123456789abcdef.ezip", [1 << 40]])
    return with_digest(folders._text(bare).encode())


def with_digest(text: Bytes) -> Bytes:
    """A manifest with the right digest of what it says."""
    bare = {name: value for name, value in json.loads(text).items() if name != "digest"}
    return folders._text(bare | {"digest": folders._seal(bare)}).encode()


class Tally:
    """What came of each reading."""

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.counts: Counter[str] = Counter()
        self.worst = 0
        self.wrong: list[str] = []

    def read(self, kind: str, path: Path, size: int, reader: Reader, right: Tensor | None) -> None:
        found: list[str] = []

        def attempt() -> None:
            try:
                rows = reader(path)
                same = right is None or (rows.dtype == right.dtype and torch.equal(rows, right))
                found.append("read" if same else "wrong rows")
            except gpuzip.FormatError as error:
                found.append("refused" if str(path) in str(error) else f"nameless {error!r:.200}")
            except Exception as error:
                found.append(f"{type(error).__name__}: {error!s:.200}")

        over = peak_growth(attempt) - 2 * size
        self.worst = max(self.worst, over)
        if over > self.room:
            found.append(f"{over} bytes more than twice the file")
        self.counts[f"{kind} {found[0]}"] += 1
        for what in found:
            if what not in ("read", "refused"):
                self.wrong.append(f"{kind}, {reader.__name__}: {what}; {path.name}")


def files(random: random.Random, count: int, folder: Path, tally: Tally) -> None:
    """Mutate files of every codec."""
    originals = {name: file_of(name) for name in CODECS}
    rows = {name: gpuzip.load(data) for name, data in originals.items()}
    for number in range(count):
        name = random.choice(list(originals))
        again = number % 3 == 2
        other = originals[random.choice(list(originals))]
        data = sealed_again(random, originals[name]) if again else mutated(random, originals[name], other)
        path = folder / f"{name}-{number}.ezip"
        path.write_bytes(data)
        kind = "sealed again" if again else "mutated"
        tally.read(kind, path, len(data), random.choice(READERS), None if again else rows[name])
        path.unlink()


def manifests(random: random.Random, count: int, folder: Path, tally: Tally) -> None:
    """Mutate the manifests of a folder of mixed codes and, with pyarrow, of one of word vectors."""
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    parts = [gpuzip.ScalarQuantizer(8).fit(x).encode(x[:99]), gpuzip.BinaryQuantizer().fit(x).encode(x[99:])]
    codes = gpuzip.MixedCodes(parts)
    codes.save(folder / "mixed")
    kinds: dict[str, list[Reader]] = {"mixed": [gpuzip.load, load_rows]}
    if find_spec("pyarrow"):
        gpuzip.WordVectors([f"word{i}" for i in range(300)], codes).save(folder / "words", words="arrow")
        kinds["words"] = [load_words]
    right = {name: readers[0](folder / name) for name, readers in kinds.items()}
    other = canonical(VALUES).encode()
    for number in range(count):
        name = random.choice(list(kinds))
        path = folder / name / folders.MANIFEST
        text, again = path.read_bytes(), number % 3 == 2
        path.write_bytes(manifest_again(random, text) if again else mutated(random, text, other))
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        kind = "manifest sealed again" if again else "manifest mutated"
        tally.read(kind, path.parent, size, random.choice(kinds[name]), None if again else right[name])
        path.write_bytes(text)


def run(count: int, seed: int) -> dict[str, Any]:
    """Mutate and read, with the memory of this process limited from here on."""
    generator, tally = random.Random(seed), Tally()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for reader in READERS:  # what a first call takes is not counted
            tally.read("first", _written(Path(name)), 0, reader, None)
        tally = Tally()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        files(generator, count * 4 // 5, Path(name), tally)
        manifests(generator, count // 5, Path(name), tally)
    return {"counts": tally.counts, "worst": tally.worst, "wrong": tally.wrong[:20]}


def _written(folder: Path) -> Path:
    path = folder / "first.ezip"
    path.write_bytes(file_of("pq"))
    return path


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
