"""The real input that ships with the repository."""

import hashlib
import json

import torch

from examples.sample import SAMPLE_DIR, load_sample


def test_the_files_are_those_of_the_manifest():
    digests = json.loads((SAMPLE_DIR / "manifest.json").read_text())["sha256"]
    assert digests
    for name, digest in digests.items():
        assert hashlib.sha256((SAMPLE_DIR / name).read_bytes()).hexdigest() == digest


def test_it_is_what_it_says():
    sample = load_sample()
    assert sample.embeddings.shape == (8000, 384)
    assert sample.queries.shape == (500, 384)
    assert (len(sample.texts), len(sample.query_texts)) == (8000, 500)
    for rows in (sample.embeddings, sample.queries):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)), rtol=0, atol=2e-4)
    assert not set(sample.texts) & set(sample.query_texts)
    assert load_sample(torch.float16).embeddings.dtype == torch.float16


def test_neighbours_make_sense():
    sample = load_sample()
    query = sample.query_texts.index("Returns the longest path length in a DAG")
    nearest = int((sample.embeddings @ sample.queries[query]).argmax())
    assert sample.texts[nearest] == "Returns the longest path in a directed acyclic graph (DAG)."


def test_it_is_small():
    assert sum(path.stat().st_size for path in SAMPLE_DIR.iterdir()) <= 8_000_000
