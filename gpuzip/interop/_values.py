"""Bits, bytes and half floats that codes consist of, for stores with types of their own for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpuzip.codecs import BinaryQuantizer, Codec, HalfQuantizer, ScalarQuantizer
from gpuzip.codecs.binary import Halves
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.codecs.half import Limit
from gpuzip.codecs.scalar import Steps
from gpuzip.errors import FormatError, GpuzipError

BITS, INT8, UINT8, HALF, BFLOAT = "bit", "int8", "uint8", "float16", "bfloat16"
MIDDLE = 128.5  # steps from the start of the range to 0: int8 v then means v * step
_MADE_BY = {
    BITS: "BinaryQuantizer()",
    INT8: "ScalarQuantizer(signed=True, range=(-128.5 / 127, 127.5 / 127))",
    UINT8: "ScalarQuantizer(per='tensor')",
    HALF: "HalfQuantizer()",
    BFLOAT: "HalfQuantizer('bfloat16')",
}


def kind_of(codec: Codec) -> str | None:
    """The kind of value that each code is, or None for codes that only their codec can read."""
    if codec.rotation is not None:
        return None
    if isinstance(codec, BinaryQuantizer):
        return BITS
    if isinstance(codec, HalfQuantizer):
        return codec.dtype
    if isinstance(codec, ScalarQuantizer) and codec.bits == 8:
        return INT8 if codec.signed else UINT8
    return None


def values_of(who: str, codes: Codes, kinds: Sequence[str]) -> tuple[str, Tensor]:
    """The kind of the codes, and their (N, B) bytes on the CPU.

    Raises GpuzipError for codes of other kinds, and for bytes whose distances are not those of the rows.
    """
    codec = check_codes(who, codes).codec
    codec.check_fitted(who)
    kind = kind_of(codec)
    if kind is None or kind not in kinds:
        made_by = ", ".join(_MADE_BY[known] for known in kinds)
        raise GpuzipError(
            f"{who}: codes must be of one of {made_by}, without a rotation; got {codec!r}. Encode the rows "
            "with one of these."
        )
    if isinstance(codec, ScalarQuantizer):
        (check_int8 if codec.signed else _check_one_step)(who, codec)
    return kind, codes.packed.data[:].cpu().contiguous()


def check_int8(who: str, codec: ScalarQuantizer) -> None:
    """Raise unless all columns share a step and int8 0 means 0: products then scale with those of rows."""
    assert codec.fitted is not None
    start, step = codec.fitted.start, codec.fitted.step
    one_unit = bool((step == step[0]).all())
    if codec.bits == 8 and codec.signed and one_unit and bool((start / step + MIDDLE).abs().max() < 1e-3):
        return
    raise GpuzipError(
        f"{who}: codes must be int8 multiples of one step; got {codec!r}. Fit ScalarQuantizer(signed=True, "
        "range=(-128.5 / 127, 127.5 / 127)), or range=(-128.5 * step, 127.5 * step) with another step."
    )


def _check_one_step(who: str, codec: ScalarQuantizer) -> None:
    """Raise unless all columns share a step: differences then scale with those of rows."""
    step = codec.learned(who).step
    if bool((step != step[0]).any()):
        raise GpuzipError(
            f"{who}: codes must have one step for all columns; got {codec!r}. Fit {_MADE_BY[UINT8]}."
        )


def codes_of(who: str, kind: str, data: Tensor, d: int, codec: Codec | None) -> Codes:
    """Codes of (N, B) bytes of a kind: of this codec, or of the one that the kind implies."""
    made = default_codec(who, kind, d) if codec is None else codec
    if kind_of(made) != kind or made.d != d:
        raise GpuzipError(
            f"{who}: codec must be one whose codes are {kind} of {d} columns; got {made!r} of {made.d}. Pass "
            "the codec that encoded these rows."
        )
    return Codes(made, data)


def rows_of(who: str, name: str, rows: Sequence[bytes]) -> Tensor:
    """The (N, B) uint8 tensor of rows of bytes.

    Raises GpuzipError for no rows and for others than bytes, FormatError for rows of several lengths.
    """
    if not len(rows) or not all(isinstance(row, bytes | bytearray | memoryview) for row in rows):
        kinds = sorted({type(row).__name__ for row in rows})
        raise GpuzipError(
            f"{who}: {name} must be bytes, one per row and at least one; got {kinds or 'none'}. Leave out "
            "rows without a vector."
        )
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or 0 in lengths:
        raise FormatError(f"{who}: {name} must have one length; got {sorted(lengths)[:9]}.")
    return torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(len(rows), -1)


def default_codec(who: str, kind: str, d: int) -> Codec:
    """What decodes bits to 1 and -1, int8 v to v / 127, and half floats to themselves."""
    if kind == BITS:
        return signs(d)
    if kind == INT8:
        return int8(d)
    if kind in (HALF, BFLOAT):
        largest = torch.tensor([torch.finfo(getattr(torch, kind)).max], dtype=torch.float32, device="cpu")
        return HalfQuantizer(kind, fitted=Limit(largest, d))
    raise GpuzipError(
        f"{who}: {kind} can be decoded only with the codec that made it; got codec=None. Pass codec=, which "
        "gpuzip.load_codec reads from a file that codec.save wrote."
    )


def signs(d: int) -> BinaryQuantizer:
    """The fitted codec whose bits decode to 1 and -1."""
    levels = torch.tensor([[-1.0], [1.0]], dtype=torch.float32, device="cpu").expand(2, d).contiguous()
    zero = torch.zeros(1, dtype=torch.float32, device="cpu")
    return BinaryQuantizer(levels="sign", fitted=Halves(zero, levels))


def int8(d: int) -> ScalarQuantizer:
    """The fitted codec whose int8 v decodes to v / 127."""
    start = torch.tensor([-MIDDLE / 127], dtype=torch.float32, device="cpu")
    step = torch.tensor([1 / 127], dtype=torch.float32, device="cpu")
    return ScalarQuantizer(range="given", per="tensor", signed=True, fitted=Steps(start, step, d))
