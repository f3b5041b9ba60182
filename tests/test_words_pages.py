"""A query of an opened folder reads only a few pages of its files, as Linux reports mapped pages."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpuzip.codecs import LloydMaxQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.words import WordVectors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")

N, D = 300_000, 300

#: Pages that a query touches: hashes, rows, offsets, text and codes, found or not, and both ends of a file.
PLACES = 20

SCRIPT = """
import mmap, sys
from pathlib import Path
from gpuzip.words import load

def mapped(folder):
    found, ours = 0, False
    for line in open("/proc/self/smaps"):
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            ours = folder in line
        elif ours and first == "Rss:":
            found += int(line.split()[1]) << 10
    return found

with open(max(Path(sys.argv[1]).iterdir(), key=lambda path: path.stat().st_size), "rb") as file:
    largest = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    largest[len(largest) // 2]
    around = mapped(sys.argv[1])  # what one touch maps: 64 KB or, here and there, 2 MB
    largest.close()

wv = load(sys.argv[1])
opened = mapped(sys.argv[1])
vector = wv["word 123456"]
missing = wv.query("nowhere", unknown="none")
assert vector.shape == (300,) and missing is None
one = mapped(sys.argv[1])
words = sum(map(len, wv))
print(around, opened, one, mapped(sys.argv[1]), words)
"""


@pytest.mark.full
@pytest.mark.parametrize("form", ["arrow", "trie"])
def test_query_reads_only_a_few_pages(tmp_path: Path, form: str):
    pytest.importorskip({"arrow": "pyarrow", "trie": "marisa_trie"}[form])
    codec = LloydMaxQuantizer.from_codebook(torch.tensor([[[-1.0], [1.0]]]), D)
    draw = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (N, codec.code_size), dtype=torch.uint8, generator=draw)
    WordVectors([f"word {i}" for i in range(N)], Codes(codec, data)).save(tmp_path / "v", words=form)
    size = sum(path.stat().st_size for path in (tmp_path / "v").iterdir())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "v")]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    around, opened, one, all_words, letters = map(int, done.stdout.split())
    assert size > 13 << 20 and around < size // 4
    assert opened <= one < min(PLACES * around, size // 3)
    if form == "arrow":  # otherwise the words are not read from these mappings
        assert all_words > one + letters // 2
