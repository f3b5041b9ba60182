"""Run the commands that docs/guides/command-line.md shows, on the sample, and write what they print there.

    python -m examples.command_line [--check]

--check writes nothing; the exit status is 1 if the page shows something else, measurements apart.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from examples.sample import load_sample

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guides" / "command-line.md"
_BLOCK = re.compile(r"(<!-- transcript -->\n```console\n)(.*?)(```\n<!-- /transcript -->)", re.DOTALL)
_VARIES = re.compile(r"^ *took .*$|^Measured .*$|(?<=\d)\.\d+", re.MULTILINE)

COMMANDS = [
    "gpuzip info emb.npy",
    "gpuzip report emb.npy --queries queries.npy --codec SQ8 --codec Binary --html report.html",
    "gpuzip compress emb.npy emb.ezip --codec PQ96x8",
    "gpuzip search emb.ezip queries.npy -k 3 | head -4",
    "gpuzip decompress emb.ezip back.npy",
    "gpuzip verify emb.ezip --source emb.npy",
    "gpuzip compress emb.npy emb.ezip --max-bytes 100kB --min-cosine 0.99; echo $?",
    "gpuzip info emb.ezip",
]


def transcript() -> str:
    """Each command with what it prints, errors too."""
    sample = load_sample()
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "emb.npy", sample.embeddings.numpy())
        np.save(Path(folder) / "queries.npy", sample.queries[:200].numpy())
        return "".join(f"$ {line}\n{_printed(line, folder)}" for line in COMMANDS)


def _printed(line: str, folder: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": ""}
    command = f'gpuzip() {{ {shlex.quote(sys.executable)} -m gpuzip "$@"; }}\n{line}'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def lasting(text: str) -> str:
    """The text without what another run or machine measures otherwise: times, memory, fractions.

    A report's table holds speeds too: only the names of its codecs stay.
    """
    blocks = re.split(r"^(?=\$ )", text, flags=re.MULTILINE)
    return "".join(
        _names(block) if block.startswith("$ gpuzip report") else block for block in map(_fixed, blocks)
    )


def _fixed(block: str) -> str:
    return _VARIES.sub("", block)


def _names(block: str) -> str:
    return "\n".join(line.split("  ")[0].split(" (")[0] for line in block.splitlines())


def main(words: list[str]) -> int:
    """Write the page, or compare it."""
    page, made = PAGE.read_text(), transcript()
    found = _BLOCK.search(page)
    if found is None:
        raise SystemExit(f"{PAGE}: has no transcript. Add its two markers.")
    if "--check" in words:
        return int(lasting(found[2]) != lasting(made))
    PAGE.write_text(page[: found.start(2)] + made + page[found.end(2) :])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
