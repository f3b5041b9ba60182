"""A decoder of archives of the scheme `transform`, from docs/format.md alone: plain Python and numpy."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.rans_by_hand import decode_block

POLYNOMIALS = {
    4: (5, 2),
    8: (11, 4),
    16: (19, 4),
    32: (37, 8),
    64: (67, 20),
    128: (157, 86),
    256: (333, 242),
}
NUMPY = {"U8": np.uint8, "F32": np.float32}


def tensors_of(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The header, and the tensors by name."""
    (size,) = struct.unpack_from("<Q", data)
    outer, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header = json.loads(outer.pop("__metadata__")["gpuzip"])
    parts = {name: (body[slice(*about["data_offsets"])], about) for name, about in outer.items()}
    return header, {
        name: np.frombuffer(raw, NUMPY[about["dtype"]]).reshape(about["shape"])
        for name, (raw, about) in parts.items()
    }


def numbers_of(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in zlib.decompress(data, -15):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield -(number + 1 >> 1) if number & 1 else number >> 1
            number = shift = 0


def sums(numbers: Iterator[int], count: int, start: int = 0) -> list[int]:
    return [start := start + next(numbers) for _ in range(count)]


def frequencies(logs: list[int]) -> list[int]:
    weights = [round(2 ** (log / 8)) for log in logs]
    every = [1, weights[0], *(weight for weight in weights[1:] for _ in range(2))]
    shares = [max(1, weight * 4096 // sum(every)) for weight in every]
    while sum(shares) > 4096:
        shares[shares.index(max(shares))] -= 1
    shares[shares.index(max(shares))] += 4096 - sum(shares)
    return shares + [0] * (256 - len(shares))


def values(side: int) -> list[int]:
    magnitudes = [2 * m - side for m in range(1, 128)]
    return [0, 0, *(level for m in magnitudes for level in (m, -m))]


def trellis(states: int) -> list[tuple[int, int]]:
    side, parity = POLYNOMIALS[states]
    odd = [(s >> 1) ^ ((side >> 1) if s & 1 else 0) for s in range(states)]
    return [(to, to ^ (parity >> 1)) for to in odd]


def decode(data: bytes) -> Any:
    """All rows (N, D)."""
    header, tensors = tensors_of(data)
    n, d, config = header["n"], header["d"], header["config"]
    model = tensors["model"].tobytes()
    length, mean_step = struct.unpack_from("<If", model)
    numbers = numbers_of(model[8 : 8 + length])
    place, freqs = {}, []
    for i in range(next(numbers)):
        place[next(numbers)] = 2 * i
        freqs += [frequencies(sums(numbers, next(numbers), 96)) for _ in range(2)]
    rank = next(numbers)
    of_basis, of_column = sums(numbers, 1 + rank), sums(numbers, d)
    offset = {of: [0, *(next(numbers) / 64 for _ in range(3))] for of in place}
    coder = (freqs, [values(0), values(1)] * len(place), trellis(config["states"]))
    loadings = np.array(decode_block(model[8 + length :], d, [place[of] for of in of_basis], *coder), float)
    mean = loadings[:, 0] * mean_step
    directions = np.linalg.qr(loadings[:, 1:], mode="complete")[0] if rank else np.eye(d)
    kept = [j for j in range(d) if of_column[j] >= 0]
    out, at, left = [], 0, n
    for size, checksum in tensors["blocks"].view("<u4"):
        block = tensors["stream"][at : at + int(size)].tobytes()
        assert zlib.crc32(block) == checksum
        rows = min(left, header["block_rows"])
        out += decode_block(block, rows, [place[of_column[j]] for j in kept], *coder)
        at, left = at + int(size), left - rows
    steps = np.array(out, float).reshape(n, len(kept))
    for column, j in zip(steps.T, kept, strict=True):
        beyond = np.array(offset[of_column[j]])[np.minimum(np.abs(column), 3).astype(int)]
        column += np.sign(column) * beyond
    found = mean + config["step"] * steps @ directions[:, kept].T
    if config["unit"]:
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    if "kept" in tensors:
        found[tensors["kept_ids"].view("<i8")[:, 0]] = tensors["kept"]
    return found
