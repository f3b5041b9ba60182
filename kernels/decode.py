"""Decodes packed codes: each code is replaced by its centroid, and rows may be rotated.

_decode: out[r, m*S + s] = centroids[m, code[ids[r], m], s], copied bit for bit; zeros for an invalid ids[r].
`share` neighbouring sub-spaces may have one codebook: centroids[m // share, code].
_decode_rotated: out = decoded rows @ rotation. Rows are decoded BD dims at a time in registers and not
written to memory. Float32 accuracy on fp16 tensor cores: table and rotation are scaled by a power of two that
brings their maximum to 2**14..2**15, then split as hi + lo, 22 bits. hi@hi + hi@lo + lo@hi are summed in
float32; lo@lo, below 2**-22 of the product, is left out.
Layouts: packed (N, B) uint8 of nbits = log2(K) bits per code with any row stride, centroids (M, K, S), ids
(R,) int64 or None (R = N), rotation (D, E) -> out (R, D) or (R, E), by rows, D = M*S.
Bytes moved: R*B (and R*8 of ids) in, R*D*itemsize out; the M*K*S*itemsize of centroids stay in cache.
_decode_rotated: R*B*ceil(E/BE) in, R*E*4 out; 2*R*D*E*(3, or 2 for fp16 centroids) operations on fp16.
Source: FAISS ProductQuantizer::decode.
Ladder: 1. one lane per output element, its code read from L1: a code, a 4-byte gather and a 4-byte store
each. 2. (here) one lane per chunk of 16 bytes of a sub-vector: one code, one gather and one store per chunk,
with neighbouring lanes in a row, so that whole lines are stored. A program takes the columns of 128 KB of
centroids, and programs of the same columns run one after the other, so that this part of the table stays in
L1.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import chunk_width, load_chunks
from ._launch import launch_or

_LINE, _WIDEST, _PROGRAM, _TABLE = 128, 1024, 16384, 1 << 17  # bytes: per row, per program, in L1
_CHUNKS = 2048  # chunks per program: 16 per lane


def _tile(D: int, K: int, S: int, itemsize: int) -> tuple[int, int, int]:
    """Return (BN, BC, W): rows, chunks per row and elements per chunk, 16 KB or 2048 chunks in all.

    The tile is as wide as its centroids fit in L1, at least a line, and divides D if a narrower tile can.
    """
    widest = min(max(_LINE, min(_WIDEST, _TABLE // K)) // itemsize, triton.next_power_of_2(D))
    BD = max(widest, 16)
    while D % BD and BD * itemsize > _LINE:
        BD //= 2
    W = chunk_width(S, itemsize)
    return min(_PROGRAM // itemsize, _CHUNKS * W) // BD, BD // W, W


@triton.jit(do_not_specialize=["R", "N"])
def _decode(
    packed_ptr, table_ptr, ids_ptr, out_ptr, R, N, M, share, stride_n,
    S: tl.constexpr, NBITS: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    # Rows and chunks share an axis, chunks fastest, because the lanes of a warp must write one row. With two
    # axes triton 3.6 would put lanes along the first and 3.9 along the second.
    t = tl.arange(0, BN * BC)[:, None]
    r = tl.program_id(0).to(tl.int64) * BN + t // BC
    c = tl.program_id(1) * BC + t % BC
    inside = (r < R) & (c < M * (S // W))
    n, known = _rows(ids_ptr, r, R, N)
    value = load_chunks(packed_ptr + n * stride_n, table_ptr, c, inside & known, S, W, NBITS, share)
    at = (r * M * S + c * W)[:, :, None] + tl.arange(0, W)
    tl.store(out_ptr + at, value, mask=inside[:, :, None])


@triton.jit
def _rows(ids_ptr, r, R, N):
    """Return the packed row of each output row r, and whether it is valid."""
    n = r
    if ids_ptr is not None:
        n = tl.load(ids_ptr + r, mask=r < R, other=-1)
    return n, (n >= 0) & (n < N)


@triton.jit
def _side_by_side(chunks, real, BN: tl.constexpr, BC: tl.constexpr, W: tl.constexpr):
    """Reshape [BN, BC, W] to [BN, BC * W]. real: [BC * W, 1], which dims exist.

    Triton 3.6 aborts if it moves the reshape of narrow chunks into the operand of wgmma. Masking missing dims
    with 0 again prevents that.
    """
    row = tl.reshape(chunks, [BN, BC * W])
    if W < 8:
        row = tl.where(tl.trans(real), row, 0.0)
    return row


@triton.jit(do_not_specialize=["R", "N"])
def _decode_rotated(
    packed_ptr, hi_ptr, lo_ptr, rotation_hi_ptr, rotation_lo_ptr, unscale_ptr, ids_ptr, out_ptr,
    R, N, D, E, chunks, stride_d, stride_n,
    S: tl.constexpr, NBITS: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, W: tl.constexpr,
    BE: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    columns = tl.cdiv(E, BE)
    r = (tl.program_id(0) // columns).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    e = tl.program_id(0) % columns * BE + tl.arange(0, BE)[None, :]
    n, known = _rows(ids_ptr, r, R, N)
    rows = packed_ptr + n * stride_n
    known = known & (r < R)
    acc = tl.zeros([BN, BE], tl.float32)
    for first in tl.range(0, chunks, BC, num_stages=STAGES):
        c = first + tl.arange(0, BC)[None, :]
        mask = known & (c < chunks)
        d = first * W + tl.arange(0, BC * W)[:, None]
        at, there = d.to(tl.int64) * stride_d + e, (d < D) & (e < stride_d)
        hi = _side_by_side(load_chunks(rows, hi_ptr, c, mask, S, W, NBITS), d < D, BN, BC, W)
        rotation_hi = tl.load(rotation_hi_ptr + at, mask=there, other=0.0)
        if SPLIT:
            rotation_lo = tl.load(rotation_lo_ptr + at, mask=there, other=0.0)
            acc = tl.dot(hi, rotation_lo, acc)
            if lo_ptr is not None:
                lo = _side_by_side(load_chunks(rows, lo_ptr, c, mask, S, W, NBITS), d < D, BN, BC, W)
                acc = tl.dot(lo, rotation_hi, acc)
            acc = tl.dot(hi, rotation_hi, acc)
        else:
            acc = tl.dot(hi.to(tl.float32), rotation_hi, acc, input_precision="ieee")
    if SPLIT:
        acc = acc * tl.load(unscale_ptr)
    tl.store(out_ptr + r * E + e, acc, mask=(r < R) & (e < E))


def decode(
    packed: Tensor, centroids: Tensor, ids: Tensor | None = None, share: int = 1, *,
    tile: tuple[int, int, int] | None = None,
) -> Tensor:  # fmt: skip
    """Launch: (N, B) uint8, (M / share, K, S), (R,) int64 or None -> (R, M*S) in the centroids' dtype."""
    (N, _), (C, K, S) = packed.shape, centroids.shape
    M = C * share
    R = N if ids is None else len(ids)
    out = torch.empty((R, M * S), dtype=centroids.dtype, device=packed.device)
    if R == 0:
        return out
    packed = packed if packed.stride(1) == 1 else packed.contiguous()
    BN, BC, W = tile or _tile(M * S, K, S, centroids.element_size())
    grid = (triton.cdiv(R, BN), triton.cdiv(M * S, BC * W))
    _decode[grid](
        packed, centroids.contiguous(), None if ids is None else ids.contiguous(), out,
        R, N, M, share, packed.stride(0), S=S, NBITS=K.bit_length() - 1, BN=BN, BC=BC, W=W,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def _rotated_tile(R: int, E: int, W: int) -> tuple[int, int, int, int, int]:
    """Return (BN, BE, BD, warps, stages): BN rows by BE columns, BD dims of the decoded rows per step.

    Chunks of fewer than 4 elements take more registers for addresses, so they get fewer rows, and single
    elements half the dims.
    """
    BE, BD = max(16, triton.next_power_of_2(E)), 16 if W == 1 else 32
    if R <= 64 and W > 1:
        return 32, min(BE, 64), BD, 4, 2
    return (128, min(BE, 128), BD, 8, 2) if W >= 4 else (64, min(BE, 64), BD, 4, 2)


def decode_rotated(
    packed: Tensor, centroids: Tensor, rotation: Tensor, ids: Tensor | None = None, *,
    tile: tuple[int, int, int, int, int] | None = None,
) -> Tensor:  # fmt: skip
    """Launch: as decode, with a rotation (D, E) float32 -> (R, E) float32."""
    R, E = len(packed) if ids is None else len(ids), rotation.shape[1]
    out = torch.empty((R, E), dtype=torch.float32, device=packed.device)
    if out.numel() == 0:
        return out
    packed = packed if packed.stride(1) == 1 else packed.contiguous()
    ids = None if ids is None else ids.contiguous()
    launch_or(
        "_decode_rotated[fp16 parts]",
        lambda: _rotate_parts(
            packed,
            centroids,
            rotation,
            ids,
            out,
            tile or _rotated_tile(R, E, chunk_width(centroids.shape[2], 2)),
        ),
        lambda: _rotate_float32(packed, centroids, rotation, ids, out),
    )
    return out


def _rotate_parts(packed, centroids, rotation, ids, out, tile):
    (hi, lo), u = _parts(centroids)
    (rotation_hi, rotation_lo), v = _parts(torch.nn.functional.pad(rotation, (0, -rotation.shape[1] % 16)))
    lo = None if centroids.dtype == torch.float16 else lo
    _rotate(packed, (hi, lo), (rotation_hi, rotation_lo), u * v, ids, out, tile, split=True)


def _rotate_float32(packed, centroids, rotation, ids, out):
    """Launch the simpler form: float32 products without tensor cores."""
    tile = 32, 16 if rotation.shape[1] <= 16 else 32, 32, 4, 1
    parts = (centroids.contiguous(), None), (rotation.contiguous(), None)
    _rotate(packed, *parts, None, ids, out, tile, split=False)


def _rotate(packed, table, rotation, unscale, ids, out, tile, split):
    (hi, lo), (R, E) = table, out.shape
    M, K, S = hi.shape
    BN, BE, BD, num_warps, stages = tile
    W = chunk_width(S, hi.element_size())
    _decode_rotated[(triton.cdiv(R, BN) * triton.cdiv(E, BE),)](
        packed, hi, lo, *rotation, unscale, ids, out,
        R, len(packed), M * S, E, M * (S // W), rotation[0].stride(0), packed.stride(0),
        S=S, NBITS=K.bit_length() - 1, BN=BN, BC=BD // W, W=W, BE=BE,
        SPLIT=split, STAGES=stages, num_warps=num_warps, enable_fp_fusion=True,
    )  # fmt: skip


def _parts(x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Split x * 2**p, whose maximum is below 2**15, into fp16 hi + lo; also return 2**-p, on the device."""
    x = x.float().contiguous()
    _, exponent = torch.frexp(x.abs().amax())
    power = (15 - exponent).clamp(-126, 126).float()
    x = x * torch.exp2(power)
    hi = x.half()
    return (hi, (x - hi.float()).half()), torch.exp2(-power)
