"""Directions and tables that many small files share: those of the rows of one embedding model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.rows import Matrix, Rows
from gpuzip.archive._varints import first, packed, unpacked
from gpuzip.archive.basis import Moments, loadings
from gpuzip.archive.classes import CLASSES, DEAD, classes_of
from gpuzip.archive.quantized import fitted_tables, offsets, quantized
from gpuzip.archive.sample import sample_of
from gpuzip.archive.tables import Tables, counted, normal_tables, tables_of
from gpuzip.archive.transform import LARGEST_WIDTH, coder, decoded_loadings, projected
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops.rans import rans_decode, rans_encode
from gpuzip.storage.atomic import replacing
from gpuzip.storage.paths import local_path
from gpuzip.storage.tensors import read_tensors, write_tensors

SUFFIX = ".gpuzip-dictionary"
#: Logarithms of spreads and steps are whole numbers of this many to an octave.
PER_OCTAVE = 256
_KEY, _TENSOR, _FORMAT = "gpuzip.dictionary", "dictionary", 1
_STATES = 8
_STEPS = 5  # steps by which tables are counted, two octaves apart
_FINE = 0.5  # step of directions over the root of the mean variance, as if rows were so many:
_AS_IF = 4096
_LARGEST_LOG = 64 * PER_OCTAVE
_MOST_NUMBERS = 1 << 18

#: Where the dictionaries that come with gpuzip are.
SHIPPED = Path(__file__).with_name("dictionaries")


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Hold what `train_dictionary` learned: `TransformCoder(dictionary=)` takes it.

    Attributes
    ----------
    mean : (D,) float64 tensor
        Mean of the rows.
    directions : (D, D) float64 tensor
        Orthonormal directions, its columns.
    logs : (D,) int64 tensor
        256 times the binary logarithm of the standard deviation along each.
    tables : Tables
        Frequencies of levels.
    offset : (33, 3) int8 tensor
        Where values lie beyond levels.
    data : bytes
        All of this, as files store it.
    """

    mean: Tensor
    directions: Tensor
    logs: Tensor
    tables: Tables
    offset: Tensor
    data: bytes

    @cached_property
    def hash(self) -> str:
        """32 hexadecimal digits, by which files refer to it."""
        return _hash(self.data)

    @property
    def d(self) -> int:
        """Columns of the rows."""
        return len(self.mean)

    def __repr__(self) -> str:
        return f"Dictionary({self.d} columns, {len(self.data)} bytes, {self.hash})"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the dictionary to a file, atomically.

        Parameters
        ----------
        path : str or path-like
            File to write. A name that ends with ".gpuzip-dictionary" is found in a folder of dictionaries.

        Returns
        -------
        Path
            The file.
        """
        target = local_path("Dictionary.save", path)
        tensor = torch.frombuffer(bytearray(self.data), dtype=torch.uint8)
        about = json.dumps({"format": _FORMAT, "d": self.d, "hash": self.hash}, sort_keys=True)
        with replacing(target) as fresh, open(fresh, "wb") as out:
            write_tensors(out, {_TENSOR: tensor}, {_KEY: about})
        return target


def train_dictionary(x: Matrix, *, seed: int = 0) -> Dictionary:
    """Learn directions and tables that small files of rows like these can share.

    Parameters
    ----------
    x : (N, D) float tensor, array or memory map
        Rows of one embedding model, best some ten thousand of texts of all kinds.
    seed : int, default 0
        Seed of the sample to learn from.

    Returns
    -------
    Dictionary
        `save` it once, and give it, its file or its folder as `dictionary=` to `TransformCoder` and to
        `gpuzip.open`.

    Raises
    ------
    GpuzipError
        If there are fewer than 2 rows.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    >>> dictionary = gpuzip.train_dictionary(x)
    >>> coder = gpuzip.TransformCoder(min_cosine=0.9, dictionary=dictionary)
    >>> coder.fit(x[:100]).encode(x[:100]).shape
    (100, 16)
    """
    rows = Rows("train_dictionary", x)
    if rows.d > LARGEST_WIDTH:
        raise GpuzipError(f"train_dictionary: x must have at most {LARGEST_WIDTH} columns; got {rows.d}.")
    if rows.n < 2:
        raise GpuzipError(f"train_dictionary: x must have at least 2 rows; got {rows.n}.")
    sample = sample_of(rows, seed)
    moments = Moments(_AS_IF, sample.moments.mean, sample.moments.covariance)
    unit = float(moments.covariance.diagonal().mean().sqrt()) or 1.0
    load = loadings(moments, rows.d, _FINE * unit)
    coded = quantized(load.values, load.classes, normal_tables(load.classes), _STATES)
    mean, directions = decoded_loadings(coded.levels, load.mean_step)
    assert directions is not None  # of every column there is one
    spread = moments.spread(directions)
    logs = logs_of(spread)
    counts = counted(coded.levels, coded.sides, load.classes)
    tables, offset = _tables(sample.rows, mean, directions, spread, counts)
    text = packed(
        [*tables.numbers(), *_differences(load.classes), *_differences(logs), *offset.flatten().tolist()]
    )
    of_tables = coder(tables, load.classes, _STATES, torch.device("cpu"))
    stream, _ = rans_encode(coded.levels.cpu(), rows.d, *of_tables)
    return read_dictionary(
        b"".join(
            (
                rows.d.to_bytes(4, "little"),
                len(text).to_bytes(4, "little"),
                _float(load.mean_step),
                text,
                stream.numpy().tobytes(),
            )
        )
    )


def logs_of(spread: Tensor) -> Tensor:
    """Standard deviations (D,) -> (D,) int64, logarithms."""
    found = (PER_OCTAVE * spread.double().clamp(min=2.0**-60).log2()).round().long()
    return found.clamp(-_LARGEST_LOG, _LARGEST_LOG)


def _tables(
    rows: Tensor, mean: Tensor, directions: Tensor, spread: Tensor, counts: Tensor
) -> tuple[Tables, Tensor]:
    """Tables of all classes, counted at steps that fill them, and the offsets at the middle one."""
    top = float(spread.max()) or 1.0
    offset = torch.zeros((CLASSES, 3), dtype=torch.int8, device="cpu")
    for i in range(_STEPS):
        step = top / 2.0 ** (i + 2)
        classes = classes_of(spread / step)
        kept = classes != DEAD
        basis = directions[:, kept].float().to(rows.device)
        values = projected(rows, mean.float().to(rows.device), basis, step)
        _, found = fitted_tables(values, classes[kept], _STATES, torch.zeros_like(counts))
        counts = counts + counted(found.levels, found.sides, classes[kept])
        own = offsets(values, classes[kept], found)
        offset = torch.where(own != 0, own, offset)
    normal = normal_tables(torch.arange(CLASSES, device="cpu"))
    return Tables(normal.logs | tables_of(counts).logs), offset


def read_dictionary(data: bytes) -> Dictionary:
    """The dictionary of its bytes. Raises FormatError for others."""
    if len(data) < 12:
        raise FormatError(f"a dictionary must have at least 12 bytes; got {len(data)}.")
    d, length = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
    if not 0 < d <= LARGEST_WIDTH or length > len(data) - 12:
        raise FormatError("a dictionary must be as long as it says.")
    mean_step = float(torch.frombuffer(bytearray(data[8:12]), dtype=torch.float32)[0])
    numbers = unpacked(data[12 : 12 + length], _MOST_NUMBERS)
    tables = Tables.read(numbers)
    if tables.classes != list(range(CLASSES)):
        raise FormatError(f"a dictionary must have tables of all {CLASSES} classes.")
    of_basis = _sums(numbers, 1 + d, 0, CLASSES - 1)
    logs = _sums(numbers, d, -_LARGEST_LOG, _LARGEST_LOG)
    offset = torch.tensor(first(numbers, 3 * CLASSES, -127, 127), dtype=torch.int8, device="cpu").view(-1, 3)
    stream = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    spans = torch.tensor([[12 + length, len(data)]], dtype=torch.int64, device="cpu")
    levels, sound = rans_decode(stream, spans, d, d, *coder(tables, of_basis, _STATES, stream.device))
    if not bool(sound.all()) or not 0 < mean_step < float("inf"):
        raise FormatError("the directions of a dictionary must be a whole block; it is damaged.")
    mean, directions = decoded_loadings(levels, mean_step)
    assert directions is not None
    return Dictionary(mean, directions, logs, tables, offset, data)


def _differences(values: Tensor) -> list[int]:
    return torch.diff(values.cpu(), prepend=values.new_zeros(1).cpu()).tolist()


def _sums(numbers: Iterator[int], count: int, least: int, most: int) -> Tensor:
    found = torch.tensor(first(numbers, count, -(1 << 20), 1 << 20), dtype=torch.int64, device="cpu").cumsum(
        0
    )
    if not bool(((found >= least) & (found <= most)).all()):
        raise FormatError(f"numbers of a dictionary must be within [{least}, {most}].")
    return found


def _float(value: float) -> bytes:
    return torch.tensor([value], dtype=torch.float32, device="cpu").numpy().tobytes()


def load_dictionary(path: str | os.PathLike[str]) -> Dictionary:
    """Read a dictionary. Raises FormatError unless the file is one and whole."""
    source = local_path("dictionary", path, "dictionary")
    tensors, metadata = read_tensors(source)
    try:
        about: Any = json.loads(metadata.get(_KEY, "null"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{source}: its header must be JSON. The file is damaged.") from error
    if not isinstance(about, dict) or set(tensors) != {_TENSOR} or tensors[_TENSOR].dtype != torch.uint8:
        raise FormatError(
            f"{source}: must be a dictionary that gpuzip wrote; it is another safetensors file."
        )
    if about.get("format") != _FORMAT:
        raise FormatError(
            f"{source}: format {about.get('format')} of a dictionary is not one that this version reads "
            f"({_FORMAT}). Upgrade gpuzip."
        )
    data = tensors[_TENSOR].numpy().tobytes()
    if _hash(data) != about.get("hash"):
        raise FormatError(f"{source}: does not match its hash. The file is damaged: restore it.")
    try:
        return read_dictionary(data)
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def given_dictionary(given: Dictionary | str | os.PathLike[str]) -> Dictionary:
    """The dictionary that a caller names: itself, or its file."""
    return given if isinstance(given, Dictionary) else load_dictionary(given)


def find_dictionary(hash: str, given: Dictionary | str | os.PathLike[str] | None) -> Dictionary:
    """The dictionary with this hash: one that is given, one in a folder that is given, or a shipped one.

    Raises FormatError that names the hash if there is none.
    """
    for dictionary in _candidates(given):
        if dictionary.hash == hash:
            return dictionary
    raise FormatError(
        f"the rows need the dictionary {hash}, which is not here. Pass it, its file or the folder that has "
        "it as dictionary=."
    )


def _candidates(given: Dictionary | str | os.PathLike[str] | None) -> Iterator[Dictionary]:
    if isinstance(given, Dictionary):
        yield given
    elif given is not None:
        place = local_path("dictionary", given, "dictionary")
        files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
        yield from map(load_dictionary, files)
    yield from map(load_dictionary, sorted(SHIPPED.glob(f"*{SUFFIX}")))


def along(dictionary: Dictionary, moments: Moments) -> tuple[Tensor, Tensor]:
    """The mean, less that of the dictionary, and the spread of rows along its directions, both (D,)."""
    off = matrix_product(torch.mv, dictionary.directions.T, moments.mean - dictionary.mean)
    return off, moments.spread(dictionary.directions)
