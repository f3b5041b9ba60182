"""Compressed word vectors: words, and codes of their vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.rows import Matrix
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import GpuzipError
from gpuzip.words import analogies
from gpuzip.words.binary import read_binary
from gpuzip.words.collector import Collector, Policy
from gpuzip.words.progress import Progress
from gpuzip.words.recipe import Options, Recipe
from gpuzip.words.sfry import read_words, write_words
from gpuzip.words.sources import dict_words, gensim_words
from gpuzip.words.text import read_text
from gpuzip.words.unknown import Unknown, checked_unknown
from gpuzip.words.vocabulary import Vocabulary, WordList

if TYPE_CHECKING:
    from typing_extensions import Unpack

Path = str | os.PathLike[str]
Ids = Sequence[int] | np.ndarray[Any, Any] | Tensor


class WordVectors:
    """N words with compressed vectors of D dimensions. Made by `from_text` and its like, or by `load`.

    words: in the order of rows. codes: Codes or MixedCodes of N rows, these in the order of their parts.
    unknown: what a query gives for a word that is not there: "error", a KeyError; "none", None; or a
    vector (D,), which stands for it. Every query can say otherwise.

    The ways to make them have these options in common, all of them of `Recipe`: bits=1, of a value, for
    smallfry's Lloyd-Max quantizer; codec=, instead of it; max_bytes= (also "20MB", of the files of codes)
    or bits_per_dim=, to find codes of that size; importance=, an array (N,) or a number by word, such as
    frequencies: more important rows have more bits, up to max_bits=8, and come first;
    dtype=torch.float32, of what queries give; seed=0.
    Source: smallfry (Ginart et al.), whose .sfry folders and queries these are like.
    """

    def __init__(
        self, words: Vocabulary | Iterable[str], codes: Codes | MixedCodes, *, unknown: Unknown = "error"
    ) -> None:
        if isinstance(words, str):
            raise GpuzipError("WordVectors: words must be a list of str; got one str.")
        self._words = words if isinstance(words, Vocabulary) else WordList(words)
        if len(self._words) != len(codes):
            raise GpuzipError(
                f"WordVectors: words must be one per row; got {len(self._words)} words for {len(codes)} rows."
            )
        self.codes, self._unknown = codes, checked_unknown(unknown, codes.shape[1])

    @classmethod
    def from_text(
        cls,
        path: Path,
        *,
        header: bool | None = None,
        limit: int | None = None,
        unicode_errors: str = "strict",
        duplicates: str = "error",
        progress: Progress = None,
        tmp_dir: Path | None = None,
        unknown: Unknown = "error",
        **options: Unpack[Options],
    ) -> WordVectors:
        """Compress a text file: GloVe's, word2vec's or fastText's .vec, in bounded memory.

        header: whether it begins with a line "V D"; None: look. limit: only so many rows, the first.
        unicode_errors: "strict", "ignore" or "replace", for words that are not UTF-8. duplicates: "error",
        "first" or "last", the vector of a word that comes twice. progress: True for a bar, or a function of
        bytes done and all. tmp_dir: where the vectors lie meanwhile, 4 * N * D bytes.
        Raises GpuzipError, naming the line, for a file that is none of these; see `words.text.read_text`.
        """
        recipe, limit = Recipe(**options), _checked_limit(limit)
        with Collector(os.fspath(path), Policy(unicode_errors, duplicates), tmp_dir) as collector:
            read_text(path, collector, header=header, limit=limit, progress=progress)
            return cls._made(collector.words(), collector.rows(), recipe, unknown)

    @classmethod
    def from_binary(
        cls,
        path: Path,
        *,
        limit: int | None = None,
        unicode_errors: str = "strict",
        duplicates: str = "error",
        progress: Progress = None,
        tmp_dir: Path | None = None,
        unknown: Unknown = "error",
        **options: Unpack[Options],
    ) -> WordVectors:
        """Compress a file of word2vec's binary form, in bounded memory. Arguments as of `from_text`."""
        recipe, limit = Recipe(**options), _checked_limit(limit)
        with Collector(os.fspath(path), Policy(unicode_errors, duplicates), tmp_dir) as collector:
            read_binary(path, collector, limit=limit, progress=progress)
            return cls._made(collector.words(), collector.rows(), recipe, unknown)

    @classmethod
    def from_gensim(
        cls, vectors: Any, *, unknown: Unknown = "error", **options: Unpack[Options]
    ) -> WordVectors:
        """Compress gensim's KeyedVectors, or whatever has its `index_to_key` and `vectors`."""
        words, rows = gensim_words(vectors)
        return cls._made(words, rows, Recipe(**options), unknown)

    @classmethod
    def from_dict(
        cls, vectors: Mapping[str, Any], *, unknown: Unknown = "error", **options: Unpack[Options]
    ) -> WordVectors:
        """Compress vectors by word: lists, arrays or tensors of one length."""
        words, rows = dict_words(vectors)
        return cls._made(words, rows, Recipe(**options), unknown)

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str | None = None,
        *,
        unknown: Unknown = "error",
        verify: bool = False,
    ) -> WordVectors:
        """Open a folder that `save` wrote, mapped: a query reads only its words' rows.

        Parameters
        ----------
        path : str or path-like
            Folder to open.
        device : torch.device or str, optional
            Where to move the codes. None leaves them mapped.
        unknown : "error", "none" or (D,) vector, default "error"
            What a query gives for an unknown word.
        verify : bool, default False
            Read and check every byte.

        Returns
        -------
        WordVectors
            The opened vectors.

        Raises
        ------
        FormatError
            If a part or a list of words is missing or altered; the message names the file.
        """
        return cls(*read_words(path, verify=verify, device=device), unknown=unknown)

    def save(self, path: Path, *, words: str = "arrow") -> None:
        """Write a folder, usually named .sfry. An older one is replaced whole, or kept on errors.

        Parameters
        ----------
        path : str or path-like
            Folder to write. Only one process may write a folder at a time.
        words : {"arrow", "trie"}, default "arrow"
            "arrow": a mapped list with a mapped look-up (needs pyarrow). "trie": the smallest (needs
            marisa-trie). Both packages are in the extra `words`.
        """
        write_words(path, self._words, self.codes, words)

    @classmethod
    def _made(cls, words: Iterable[str], rows: Matrix, recipe: Recipe, unknown: Unknown) -> WordVectors:
        vocabulary = WordList(words)
        if len(vocabulary) == 0:
            raise GpuzipError("WordVectors: words must hold at least one word; got none.")
        checked_unknown(unknown, rows.shape[1])  # before a long training, not after it
        codes, order = recipe.compress(rows, list(vocabulary))
        if order is not None:
            vocabulary = WordList(map(vocabulary.word, order.tolist()))
        return cls(vocabulary, codes, unknown=unknown)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._words

    def __iter__(self) -> Iterator[str]:
        """Words in the order of rows."""
        return iter(self._words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self)} words, {self.codes!r}, {self.nbytes} bytes)"

    @property
    def words(self) -> Vocabulary:
        """The words in the order of rows: len, in, iteration, `words[row]`. list(words) reads them all."""
        return self._words

    @property
    def nbytes(self) -> int:
        """Bytes of codes, codebooks, words, and the way from a word to its row."""
        return self.codes.nbytes + self._words.nbytes

    def index_of(self, word: str) -> int:
        """The row of a word. Raises KeyError when it has none."""
        row = self._row(word)
        if row is None:
            raise KeyError(word)
        return row

    def query(self, words: str | Iterable[str], *, unknown: Unknown | None = None) -> Any:
        """Decode the vector of a word, or those of a list of words.

        Parameters
        ----------
        words : str or iterable of str
            Words to look up.
        unknown : "error", "none" or (D,) vector, optional
            As in the constructor, for this call. Where it is "none", an unknown word gives None, and a list
            of words always a list of n vectors or Nones.

        Returns
        -------
        (D,) or (n, D) tensor
            (D,) for one word.
        """
        policy = self._unknown if unknown is None else checked_unknown(unknown, self.codes.shape[1])
        if isinstance(words, str):
            return self._queried([words], policy)[0]
        found = self._queried(list(words), policy)
        return list(found) if isinstance(policy, str) and policy == "none" else found

    def __getitem__(self, words: str | Iterable[str]) -> Any:
        """`query(words)`."""
        return self.query(words)

    def query_idx(self, ids: int | Ids) -> Tensor:
        """The vector of a row, (D,), or those of some rows, (R, D). Raises IndexError."""
        return self.codes.rows([int(ids)])[0] if is_whole(ids) else self.codes.rows(ids)  # type: ignore[arg-type]

    def most_similar(
        self, positive: analogies.Some = None, negative: analogies.Some = None, topn: int = 10
    ) -> list[tuple[str, float]]:
        """Find the topn words nearest by cosine to a mean, in which negative words count -1.

        Parameters
        ----------
        positive : word, (D,) vector, or a list of these, optional
            Words count as unit vectors, vectors as they come.
        negative : word, (D,) vector, or a list of these, optional
            As positive, with weight -1.
        topn : int, default 10
            Number of words to return.

        Returns
        -------
        list of (word, score)
            Words that are asked with are left out. Scores are those of the decoded rows.

        Raises
        ------
        KeyError
            If a word is not there.

        Notes
        -----
        Source: gensim's function of this name; 3CosAdd of Mikolov et al. 2013.
        """
        return analogies.most_similar(self._words, self.codes, positive, negative, topn)

    def to(self, device: torch.device | str) -> WordVectors:
        """With the codes on a device; words stay where they are."""
        return WordVectors(self._words, self.codes.to(device), unknown=self._unknown)

    def _row(self, word: Any) -> int | None:
        return self._words.find(word) if isinstance(word, str) else None

    def _queried(self, words: list[str], policy: str | Tensor) -> Any:
        """(n, D), or under "none" a list of n rows or Nones."""
        rows = [self._row(word) for word in words]
        if None not in rows:
            return self.codes.rows(rows)  # type: ignore[arg-type]
        if isinstance(policy, str) and policy == "error":
            raise KeyError(words[rows.index(None)])
        known = self.codes.rows([row for row in rows if row is not None])
        found = iter(known)
        if isinstance(policy, str):
            return [None if row is None else next(found) for row in rows]
        vector = policy.to(known.device, known.dtype)
        return torch.stack([vector if row is None else next(found) for row in rows])


def _checked_limit(limit: int | None) -> int | None:
    return None if limit is None else whole("WordVectors", "limit", limit)
