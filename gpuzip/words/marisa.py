"""Words of a marisa trie that a file holds, read in a process of its own.

marisa follows the file's offsets without a look at them: a damaged or forged file crashes the process that
reads it, or holds it for ever. Only what a child process says of a file is used here, within limits of time
and size. The child has the rights of this process, so this contains accidents, and is no sandbox.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpuzip._core.extras import needs
from gpuzip.errors import FormatError

#: Seconds that a child may take, and bytes of a file for each second more. It reads some MB per second.
PATIENCE, BYTES_A_SECOND = 30.0, 100_000

#: Bytes that the words of a file may take for each of its own, and those that any may.
LARGEST_RATIO, LEAST = 256, 1 << 20

_CHILD = """
import json, sys
from itertools import islice
kind, path, most, sys.path = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
import marisa_trie
try:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
trie = marisa_trie.Trie() if kind == "words" else marisa_trie.RecordTrie("<I")
trie.mmap(path)
if kind == "words":
    count = len(trie) if len(trie) <= most else 0
    pairs = ((trie.restore_key(i), i) for i in range(count))
else:
    pairs = ((word, number) for word, (number,) in islice(trie.iteritems(), most))
total = 0
while batch := list(islice(pairs, 1000)):
    total += sum(len(word) + 8 for word, _ in batch)
    if total > most:
        sys.exit(3)
    sys.stdout.write(json.dumps(batch) + "\\n")
"""


def read_pairs(path: Path, kind: str) -> list[tuple[str, int]]:
    """Words and numbers of a trie. kind: "words", numbered in the trie's order, or "numbers", its records.

    Raises FormatError for a file that holds no trie, and MissingDependencyError without marisa-trie.
    """
    marisa_trie()
    size = path.stat().st_size
    most = LARGEST_RATIO * size + LEAST
    command = [sys.executable, "-I", "-c", _CHILD, kind, str(path), str(most), json.dumps(sys.path)]
    with tempfile.TemporaryFile() as out:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                timeout=PATIENCE + size / BYTES_A_SECOND,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _unreadable(path, "reading it comes to no end") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise _unreadable(path, said or f"its reader ended with {done.returncode}")
        out.seek(0)
        try:
            return [(word, number) for batch in map(json.loads, out) for word, number in batch]
        except (ValueError, TypeError, RecursionError) as error:
            raise _unreadable(path, str(error)) from error


def marisa_trie() -> Any:
    with needs("marisa-trie", "words"):
        import marisa_trie
    return marisa_trie


def _unreadable(path: Path, why: str) -> FormatError:
    return FormatError(f"{path}: cannot be read as a trie ({why:.200}). Restore the file, or make it again.")
