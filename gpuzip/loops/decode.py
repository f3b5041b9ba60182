"""Decodes packed codes: each code copies its centroid in the widest words that divide it."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import flat
from gpuzip.loops._copy import copy_words, word_at
from gpuzip.loops._jit import UNROLLED, jit, unrolled
from gpuzip.loops._vectors256 import address_of

_BLOCK = 1 << 22  # output bytes per block: fewer do not pay for another thread
_FEW = 64  # up to so many rows, a codebook of whole bytes does not pay
_ALL = np.empty(0, np.int64)
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def decode(packed: Tensor, centroids: Tensor, ids: Tensor | None = None, share: int = 1) -> Tensor:
    if share > 1 and (len(packed) if ids is None else len(ids)) >= _FEW:
        centroids, share = by_byte(centroids, share)
    C, _, S = centroids.shape
    out = uninitialized(len(packed) if ids is None else len(ids), C * share * S, centroids.dtype)
    if out.numel() == 0:
        return out
    codes = packed.contiguous().numpy()
    chosen = _ALL if ids is None else ids.contiguous().numpy()
    write, words = writer(centroids, share)

    def one_block(start: int, stop: int) -> None:
        write(codes, chosen, start, out[start:stop].view(words).numpy())

    map_blocks(one_block, len(out), max(1, _BLOCK // out[0].nbytes), with_caller=True)
    return out


def writer(centroids: Tensor, share: int) -> tuple[Callable[..., None], torch.dtype]:
    """Return write(codes, ids, first, out), which decodes, and the dtype of the words that out has.

    codes (N, B) uint8, ids (R,) int64, or none for all rows: arrays. out: the rows or ids from `first` on.
    """
    C, K, S = centroids.shape
    M, nbits = C * share, K.bit_length() - 1
    size = int(np.gcd(S * centroids.element_size(), 8))
    table = centroids.contiguous().view(_WORDS[size]).numpy()
    count = table.shape[2]
    if size == 4 and count == 1 and nbits <= 8 and share in (1, M):
        return partial(_one_word, nbits, table.reshape(-1), share == 1), _WORDS[size]
    width = unrolled(count if count <= UNROLLED else 0, table.dtype.type(0))
    starts = np.arange(M) // share * (K * table[0, 0].nbytes)
    loop = {8: _of_bytes, 4: _of_halves}.get(nbits, _of_bits)
    return partial(loop, nbits, table, starts, width), _WORDS[size]


def _decode_of(name, code_at):
    """Return the loop for codes that code_at(packed, row, m, nbits) reads."""

    @jit(name=name)
    def loop(nbits, centroids, starts, width, packed, ids, first, out):
        M, size = len(starts), centroids.shape[2] * centroids.itemsize
        table, target = address_of(centroids), address_of(out)
        for n in range(len(out)):
            row = ids[first + n] if len(ids) else first + n
            if row < 0 or row >= len(packed):
                for i in range(out.shape[1]):
                    out[n, i] = 0
                target += M * size
            else:
                for m in range(M):
                    code = code_at(packed, row, m, nbits)
                    copy_words(table + starts[m] + code * size, target, size, width)
                    target += size

    return loop


_CODE = "int64(uint8[:, ::1], intp, intp, intp)"


@jit(_CODE, inner=True)
def _byte(packed, row, m, nbits):
    return np.int64(packed[row, m])


@jit(_CODE, inner=True)
def _half(packed, row, m, nbits):
    return (np.int64(packed[row, m >> 1]) >> ((m & 1) * 4)) & 15


@jit(_CODE, inner=True)
def bits_of(packed, row, m, nbits):
    """A code that ends earlier uses no bit of the next bytes, so at the end of a row any byte will do."""
    byte, last = m * nbits >> 3, packed.shape[1] - 1
    bits = (
        np.int64(packed[row, byte])
        | np.int64(packed[row, min(byte + 1, last)]) << 8
        | np.int64(packed[row, min(byte + 2, last)]) << 16
    )
    return (bits >> (m * nbits & 7)) & ((1 << nbits) - 1)


@jit("intp(intp, intp, intp, intp)", inner=True)
def words_of(rows, B, M, nbits):
    """Return how many words of eight codes may be read of the first of so many rows, not past the last."""
    return min(M // 8, max(0, rows * B - 8 + nbits) // nbits)


@jit("void(intp, int32[::1], boolean, uint8[:, ::1], int64[::1], intp, int32[:, ::1])")
def _one_word(nbits, table, is_own, packed, ids, first, out):
    """Decode codes of up to eight bits whose centroids are single words, from words of eight codes.

    is_own: every code has a table of its own. Otherwise there is one.
    """
    (N, B), M, bits = packed.shape, out.shape[1], np.uint64(nbits)
    base, target, size = address_of(packed), flat(out), np.uint64(1) << bits
    for n in range(len(out)):
        row = ids[first + n] if len(ids) else first + n
        if row < 0 or row >= N:
            for m in range(M):
                out[n, m] = 0
            continue
        at, into = base + row * B, np.uint64(n) * np.uint64(M)
        eights = words_of(N - row, B, M, nbits)
        if is_own:
            _own_tables(at, eights, bits, table, target, into)
        else:
            one_table(at, eights, bits, table, target, into)
        for m in range(8 * eights, M):
            code = np.uint64(bits_of(packed, row, m, nbits))
            out[n, m] = table[code + np.uint64(m) * size if is_own else code]


_WORD = "void(intp, intp, uint64, int32[::1], int32[::1], uint64)"


@jit(_WORD, inner=True)
def one_table(at, count, bits, table, out, into):
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for j in range(count):
        word, first = np.uint64(word_at(at + j * np.intp(bits))), into + np.uint64(8) * np.uint64(j)
        for i in range(8):
            out[first + np.uint64(i)] = table[word & mask]
            word >>= bits


@jit(_WORD, inner=True)
def _own_tables(at, count, bits, table, out, into):
    size = np.uint64(1) << bits
    start, mask = np.uint64(0), size - np.uint64(1)
    for j in range(count):
        word, first = np.uint64(word_at(at + j * np.intp(bits))), into + np.uint64(8) * np.uint64(j)
        for i in range(8):
            out[first + np.uint64(i)] = table[start + (word & mask)]
            word >>= bits
            start += size


_of_bytes, _of_halves = _decode_of("bytes", _byte), _decode_of("halves", _half)
_of_bits = _decode_of("bits", bits_of)
