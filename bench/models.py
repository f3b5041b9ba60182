"""A sentence encoder whose token table is compressed: its bytes, and what its embeddings keep.

    python -m bench.models [--rows 200]

all-MiniLM-L6-v2 embeds texts of the sample, 3,000 or so many, and all its queries, by each compressed model
anew. Truth is the unmodified model: the sample's own embeddings, which are its. Writes
bench/results/models.csv, unless of fewer texts.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import gpuzip
from bench.data import sample
from bench.measure import timed
from bench.record import main
from examples.make_sample import BATCH, load_encoder
from gpuzip.nn import quantize_embeddings_

#: Texts of the sample's 8,000 that are embedded again and searched.
TEXTS = 3_000
K = 10

_AGREES = 2e-3  # between the sample's float16 embeddings and the encoder's own


def is_word_table(name: str, module: nn.Module) -> bool:
    return name.endswith("word_embeddings")


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    """The word table alone at each width, then the tables of positions and kinds as well, at 4 bits."""
    encoder, texts = load_encoder(), few or TEXTS
    check_truth(encoder)
    whole = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    words: list[tuple[int, str, Any]] = [(bits, "words", is_word_table) for bits in (8, 4, 2, 1)]
    for bits, tables, accept in [*words, (4, "words, positions, kinds", None)]:
        model = copy.deepcopy(encoder)
        report, took = timed(lambda: quantize_embeddings_(model, bits, filter_fn=accept))  # noqa: B023
        done = [row for row in report.rows if row.reason is None]
        before, after = sum(row.bytes_before for row in done), sum(row.bytes_after for row in done)
        sizes = {"bytes_before": before, "bytes_after": after}
        yield (
            {"bits": bits, "tables": tables, "texts": texts, "queries": len(sample().queries)}
            | sizes
            | {"model_bytes": whole - before + after, "model_before": whole}
            | {"mse": done[0].mse, "table_cosine": done[0].cosine, "seconds": took}
            | kept(model, texts)
        )


def check_truth(encoder: Any) -> None:
    """Raises RuntimeError where the sample's embeddings are not this encoder's."""
    few = sample().query_texts[:BATCH]
    most = float((embedded(encoder, few) - sample().queries[: len(few)]).abs().max())
    if most > _AGREES:
        raise RuntimeError(
            f"the encoder's embeddings differ from the sample's by {most:.3g}; it is another one"
        )


def kept(model: Any, texts: int) -> dict[str, float]:
    """Mean cosine of texts and of queries with the unmodified model's, and recall of its neighbours."""
    corpus, asked = embedded(model, sample().texts[:texts]), embedded(model, sample().query_texts)
    true_corpus, true_asked = sample().embeddings[:texts], sample().queries
    found, truth = ((q @ x.T).topk(K).indices for q, x in ((asked, corpus), (true_asked, true_corpus)))
    return {
        "text_cosine": float(torch.cosine_similarity(corpus, true_corpus).mean()),
        "query_cosine": float(torch.cosine_similarity(asked, true_asked).mean()),
        "recall": gpuzip.recall(found, truth),
    }


def embedded(model: Any, texts: list[str]) -> Tensor:
    """(n, 384) float32 of unit length."""
    options = {"convert_to_tensor": True, "normalize_embeddings": True, "show_progress_bar": False}
    rows: Tensor = model.encode(texts, batch_size=BATCH, **options)
    return rows


if __name__ == "__main__":
    sys.exit(main("models", __doc__, measure))
