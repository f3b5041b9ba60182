"""Compressed word vectors: words, and codes of their vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.progress import Progress
from gpuzip._core.rows import Matrix
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import GpuzipError
from gpuzip.storage.paths import local_path
from gpuzip.words import analogies
from gpuzip.words.binary import read_binary
from gpuzip.words.collector import Collector, Policy
from gpuzip.words.recipe import Options, Recipe
from gpuzip.words.sfry import read_words, write_words
from gpuzip.words.sources import dict_words, gensim_words
from gpuzip.words.text import read_text
from gpuzip.words.unknown import Unknown, checked_unknown
from gpuzip.words.vocabulary import RowOfWord, Vocabulary, WordList

if TYPE_CHECKING:
    from typing_extensions import Unpack

Path = str | os.PathLike[str]
Ids = Sequence[int] | np.ndarray[Any, Any] | Tensor


class WordVectors:
    """Look up compressed word vectors by word.

    `from_text`, `from_binary`, `from_gensim` and `from_dict` compress vectors; `load` opens saved ones.

    Parameters
    ----------
    words : iterable of str, or Vocabulary
        N distinct words, in the order of rows.
    codes : Codes or MixedCodes
        Compressed vectors (N, D). MixedCodes must have their rows in the order of their parts.
    unknown : "error", "none" or (D,) vector, default "error"
        Result of a query for an unknown word: a KeyError, None, or this vector.

    Raises
    ------
    GpuzipError
        If there is not one word per row, or a word is not a str, is not Unicode text or is repeated.

    Notes
    -----
    The constructors share these compression options:

    - `bits` : int, default 1. Bits per value of a LloydMaxQuantizer; with `importance`, bits on average.
    - `codec` : Codec, optional. Codec to use instead, fitted or not.
    - `max_bytes` : int or str, optional. Upper bound for the files of codes, such as "20MB". Words are extra.
    - `bits_per_dim` : float, optional. Upper bound as bits per value.
    - `importance` : (N,) array or dict of numbers by word, optional. Weights such as frequencies. A word
      without one gets the least. More important rows get more bits and come first.
    - `max_bits` : int, default 8. Upper bound for the bits per value of any row.
    - `dtype` : torch.dtype, default torch.float32. Dtype of decoded vectors.
    - `seed` : int, default 0. Seed of all random draws.

    Source: smallfry (Ginart et al.), which has .sfry folders and similar queries.

    Examples
    --------
    >>> import gpuzip
    >>> vectors = gpuzip.WordVectors.from_dict({"cat": [1.0, 2.0], "dog": [3.0, 4.0]}, bits=2)
    >>> "cat" in vectors, vectors.index_of("dog"), tuple(vectors["cat"].shape)
    (True, 1, (2,))
    """

    codes: Codes | MixedCodes

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
        encoding: str = "utf-8",
        unicode_errors: str = "strict",
        duplicates: str = "error",
        progress: Progress = None,
        tmp_dir: Path | None = None,
        unknown: Unknown = "error",
        **options: Unpack[Options],
    ) -> WordVectors:
        """Compress a text file of word vectors in bounded memory.

        Parameters
        ----------
        path : str or path-like
            File with a line "word number ... number" per word, as GloVe, word2vec and fastText (.vec)
            write. A space or a tab stands before each number; lines end with \\n, \\r\\n or \\r. It may be
            compressed by gzip, bzip2, xz or zip, or be a pipe such as /dev/stdin.
        header : bool, optional
            Whether the first line is "N D". None detects two whole numbers. With a header a word may hold
            spaces and numbers ("route 66"), as it is all before the last D numbers.
        limit : int, optional
            Number of rows to read, from the first. None reads all.
        encoding : str, default "utf-8"
            Encoding of the words; one that keeps ASCII, such as "latin-1".
        unicode_errors : {"strict", "ignore", "replace"}, default "strict"
            How to decode words that are not in this encoding.
        duplicates : {"error", "first", "last"}, default "error"
            Which vector of a repeated word to keep. Its row is that of the first.
        progress : bool or callable, optional
            True shows a bar. A function is called with bytes read and bytes in all.
        tmp_dir : str or path-like, optional
            Folder for a temporary file of 4 * N * D bytes. None uses the system's.
        unknown : "error", "none" or (D,) vector, default "error"
            As in the class.
        **options
            Compression options, as in the Notes of the class.

        Returns
        -------
        WordVectors
            The compressed vectors.

        Raises
        ------
        GpuzipError
            If a line is not a word and D finite numbers, or contradicts the header. The message names the
            line.
        """
        recipe, limit = Recipe(**options), _checked_limit(limit)
        path, tmp_dir = _local("from_text", path, tmp_dir)
        with Collector(os.fspath(path), Policy(unicode_errors, duplicates, encoding), tmp_dir) as collector:
            read_text(path, collector, header=header, limit=limit, progress=progress)
            return cls._made(collector.words(), collector.rows(), recipe, unknown)

    @classmethod
    def from_binary(
        cls,
        path: Path,
        *,
        limit: int | None = None,
        encoding: str = "utf-8",
        unicode_errors: str = "strict",
        duplicates: str = "error",
        progress: Progress = None,
        tmp_dir: Path | None = None,
        unknown: Unknown = "error",
        **options: Unpack[Options],
    ) -> WordVectors:
        """Compress a file in word2vec's binary format in bounded memory.

        Parameters
        ----------
        path : str or path-like
            File with a line "N D", then for each word its bytes, a space and D little-endian float32. It may
            be compressed, or be a pipe, as in `from_text`.
        limit : int, optional
            As in `from_text`.
        encoding : str, default "utf-8"
            As in `from_text`.
        unicode_errors : {"strict", "ignore", "replace"}, default "strict"
            As in `from_text`.
        duplicates : {"error", "first", "last"}, default "error"
            As in `from_text`.
        progress : bool or callable, optional
            As in `from_text`.
        tmp_dir : str or path-like, optional
            As in `from_text`.
        unknown : "error", "none" or (D,) vector, default "error"
            As in the class.
        **options
            Compression options, as in the Notes of the class.

        Returns
        -------
        WordVectors
            The compressed vectors.

        Raises
        ------
        GpuzipError
            If the file contradicts its header. The message names the row.
        """
        recipe, limit = Recipe(**options), _checked_limit(limit)
        path, tmp_dir = _local("from_binary", path, tmp_dir)
        with Collector(os.fspath(path), Policy(unicode_errors, duplicates, encoding), tmp_dir) as collector:
            read_binary(path, collector, limit=limit, progress=progress)
            return cls._made(collector.words(), collector.rows(), recipe, unknown)

    @classmethod
    def from_gensim(
        cls, vectors: Any, *, unknown: Unknown = "error", **options: Unpack[Options]
    ) -> WordVectors:
        """Compress the vectors of gensim's KeyedVectors.

        Parameters
        ----------
        vectors : gensim KeyedVectors
            Or any object with `index_to_key`, a list of N words, and `vectors`, an (N, D) float array.
        unknown : "error", "none" or (D,) vector, default "error"
            As in the class.
        **options
            Compression options, as in the Notes of the class.

        Returns
        -------
        WordVectors
            The compressed vectors.

        Raises
        ------
        GpuzipError
            For another object, such as a model (pass its `.wv`).

        Warns
        -----
        UserWarning
            If fastText's vectors of subwords are left out: words that it did not see are then unknown.
        """
        words, rows = gensim_words(vectors)
        return cls._made(words, rows, Recipe(**options), unknown)

    @classmethod
    def from_dict(
        cls, vectors: Mapping[str, Any], *, unknown: Unknown = "error", **options: Unpack[Options]
    ) -> WordVectors:
        """Compress vectors that a dict holds by word.

        Parameters
        ----------
        vectors : dict of str to (D,) list, array or tensor
            Finite vectors of one length.
        unknown : "error", "none" or (D,) vector, default "error"
            As in the class.
        **options
            Compression options, as in the Notes of the class.

        Returns
        -------
        WordVectors
            The compressed vectors.

        Raises
        ------
        GpuzipError
            If lengths differ, or a vector holds NaN, inf or a number beyond float32.
        """
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
        """Open a folder that `save` wrote. Files are mapped, so a query reads only the rows of its words.

        Parameters
        ----------
        path : str or path-like
            Folder to open.
        device : torch.device or str, optional
            Where to move the codes. None leaves them mapped.
        unknown : "error", "none" or (D,) vector, default "error"
            As in the class.
        verify : bool, default False
            Whether to read all bytes and check them.

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
        """Write a folder, usually named .sfry. An existing one is replaced, and kept if an error occurs.

        Parameters
        ----------
        path : str or path-like
            Folder to write. Writers of one folder wait for each other, where the platform has `flock`.
        words : {"arrow", "trie"}, default "arrow"
            "arrow": a mapped list with a mapped look-up (needs pyarrow). "trie": the smallest (needs
            marisa-trie); all its words are read when it is opened, in some seconds per million. Both
            packages are in the extra `words`.
        """
        write_words(path, self._words, self.codes, words)

    @classmethod
    def _made(cls, words: Iterable[str], rows: Matrix, recipe: Recipe, unknown: Unknown) -> WordVectors:
        vocabulary = WordList(words)
        if len(vocabulary) == 0:
            raise GpuzipError("WordVectors: words must hold at least one word; got none.")
        checked_unknown(unknown, rows.shape[1])  # fail before the fit, which may take long
        codes, order = recipe.compress(rows, list(vocabulary))
        if order is not None:
            vocabulary = WordList(map(vocabulary.word, order.tolist()))
        return cls(vocabulary, codes, unknown=unknown)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._words

    def __iter__(self) -> Iterator[str]:
        """Iterate over the words in the order of rows."""
        return iter(self._words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self)} words, {self.codes!r}, {self.nbytes} bytes)"

    @property
    def words(self) -> Vocabulary:
        """Words in the order of rows, read on access: `words[row]`, `len`, `in`, iteration."""
        return self._words

    @property
    def nbytes(self) -> int:
        """Bytes of codes, codebooks, words and the tables that find the row of a word."""
        return self.codes.nbytes + self._words.nbytes

    def index_of(self, word: str) -> int:
        """Return the row of a word.

        Parameters
        ----------
        word : str
            Word to find.

        Returns
        -------
        int
            Its row, from 0.

        Raises
        ------
        KeyError
            If the word is unknown.
        """
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
            Replaces the constructor's choice for this call.

        Returns
        -------
        (D,) tensor, (n, D) tensor or list
            (D,) for one word, (n, D) for a list of n words. With unknown="none", an unknown word gives None
            and a list of words gives a list.

        Raises
        ------
        KeyError
            If a word is unknown and `unknown` is "error".
        """
        policy = self._unknown if unknown is None else checked_unknown(unknown, self.codes.shape[1])
        if isinstance(words, str):
            return self._queried([words], policy)[0]
        found = self._queried(analogies.listed("WordVectors.query", "words", words), policy)
        return list(found) if isinstance(policy, str) and policy == "none" else found

    def __getitem__(self, words: str | Iterable[str]) -> Any:
        """Return `query(words)`."""
        return self.query(words)

    def query_idx(self, ids: int | Ids) -> Tensor:
        """Decode vectors by row.

        Parameters
        ----------
        ids : int, or (R,) ints
            Rows. Negative ones count from the end.

        Returns
        -------
        (D,) or (R, D) tensor
            (D,) for one row.

        Raises
        ------
        IndexError
            If a row is out of range.
        """
        return self.codes.rows([int(ids)])[0] if is_whole(ids) else self.codes.rows(ids)  # type: ignore[arg-type]

    def most_similar(
        self, positive: analogies.Some = None, negative: analogies.Some = None, topn: int = 10
    ) -> list[tuple[str, float]]:
        """Find the words with the highest cosine to the mean of some words, as analogies need it.

        Parameters
        ----------
        positive : word, (D,) vector, or a list of these, optional
            Terms of the mean. A word counts as a unit vector, a vector as it is. In a list, a tuple (term,
            weight) sets its weight.
        negative : word, (D,) vector, or a list of these, optional
            Terms with weight -1. The weight of a tuple is taken as it is, as gensim does: give it below 0.
        topn : int, default 10
            Number of words to return.

        Returns
        -------
        list of (word, score)
            Best first, without the given words. The score is the cosine of the mean and the decoded row.

        Raises
        ------
        KeyError
            If a word is unknown.

        Notes
        -----
        Source: `KeyedVectors.most_similar` of gensim; 3CosAdd (Mikolov et al., 2013).
        """
        return analogies.most_similar(self._words, self.codes, positive, negative, topn)

    def similarity(self, w1: str, w2: str) -> float:
        """Compute the cosine of two words (gensim's name).

        Parameters
        ----------
        w1, w2 : str
            Words to compare.

        Returns
        -------
        float
            The cosine of their decoded vectors; 0 if one of them is 0.

        Raises
        ------
        KeyError
            If a word is unknown.
        """
        return analogies.similarity(self._words, self.codes, w1, w2)

    def get_vector(self, key: str, norm: bool = False) -> Tensor:
        """Decode the vector of a word (gensim's name).

        Parameters
        ----------
        key : str
            Word to look up.
        norm : bool, default False
            Whether to scale the vector to length 1.

        Returns
        -------
        (D,) tensor
            The vector.

        Raises
        ------
        KeyError
            If the word is unknown.
        """
        vector = self.codes.rows([self.index_of(key)])[0]
        return torch.nn.functional.normalize(vector, dim=0) if norm else vector

    @property
    def key_to_index(self) -> Mapping[str, int]:
        """Row by word, read on access (gensim's name)."""
        return RowOfWord(self._words)

    @property
    def index_to_key(self) -> Vocabulary:
        """Words in the order of rows: `words` under gensim's name."""
        return self._words

    def to(self, device: torch.device | str) -> WordVectors:
        """Move the codes to a device. Words stay in CPU memory.

        Parameters
        ----------
        device : torch.device or str
            Where to move the codes.

        Returns
        -------
        WordVectors
            A new object with the same words.
        """
        return WordVectors(self._words, self.codes.to(device), unknown=self._unknown)

    def _row(self, word: Any) -> int | None:
        return self._words.find(word) if isinstance(word, str) else None

    def _queried(self, words: list[str], policy: str | Tensor) -> Any:
        """Decode n words to (n, D), or with "none" to a list of n rows or Nones."""
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


def _local(who: str, path: Path, tmp_dir: Path | None) -> tuple[Path, Path | None]:
    who = f"WordVectors.{who}"
    return local_path(who, path), None if tmp_dir is None else local_path(who, tmp_dir, "tmp_dir")
