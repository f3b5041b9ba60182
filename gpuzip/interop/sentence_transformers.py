"""sentence-transformers: its quantized arrays, byte for byte, and a search that decodes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codecs._float_scorer import float_scorer
from gpuzip.codecs.binary import Halves, mirrored
from gpuzip.codecs.scalar import Steps
from gpuzip.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.ops import bucketize_packed, scalar_encode
from gpuzip.rescoring import check_multiplier
from gpuzip.rows import BLOCK_BYTES, Matrix, Rows, whole
from gpuzip.search import WORKSPACE, best, check_metric, query_bytes

Hits = list[list[dict[str, int | float]]]

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_SCALAR = ("int8", "uint8")
_SIGNED = ("int8", "binary")  # held as uint8 with the highest bit of every byte turned
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def quantize_embeddings(
    embeddings: Any, precision: str, ranges: Any = None, calibration_embeddings: Any = None
) -> Any:
    """Quantize to the bytes of `sentence_transformers.util.quantization.quantize_embeddings`.

    embeddings: (N, D) or (D,) float array or tensor, on any device; a list of rows, which are stacked; or
    a list of matrices of any heights, which share their ranges and give a list. Arithmetic is float32, of
    float64 float64.
    precision: "float32"; "int8" or "uint8", 255 steps of each column's range; "binary" or "ubinary", value
    > 0 as one bit, (N, ceil(D / 8)).
    ranges: (2, D), minimum and maximum of every column, for "int8" and "uint8"; else those of
    calibration_embeddings, (n, D); else of the embeddings themselves, with a warning below 100 rows.
    Returns an array for arrays, and for tensors a tensor on their device, where sentence-transformers
    always gives an array.
    Raises DtypeError for what is not floats; GpuzipError for NaN, another shape, an unknown precision, and
    "int8" or "uint8" of a single embedding, which has no range.
    Source: sentence-transformers 6.2.
    """
    who = "quantize_embeddings"
    if precision not in PRECISIONS:
        raise GpuzipError(f"{who}: precision is {precision!r}, one of {', '.join(PRECISIONS)} is needed.")
    if isinstance(embeddings, list) and not embeddings:
        return []
    several = isinstance(embeddings, list) and getattr(embeddings[0], "ndim", 0) == 2
    given = embeddings if several else [_stacked(who, "embeddings", embeddings)]
    parts = [_floats(who, "embeddings", part) for part in given]
    scaled = precision in _SCALAR
    limits = _limits(who, precision, parts, ranges, calibration_embeddings) if scaled else None
    out = [_like(part, _quantized(x, precision, limits)) for part, x in zip(given, parts, strict=True)]
    return out if several else out[0]


def semantic_search(
    query_embeddings: Any,
    corpus: Any,
    top_k: int = 10,
    *,
    precision: str | None = None,
    ranges: Any = None,
    calibration_embeddings: Any = None,
    rescore: bool | Matrix | Codes = True,
    rescore_multiplier: float = 2,
    metric: str = "ip",
) -> Hits:
    """The top_k entries of a corpus for every query: lists of {"corpus_id": int, "score": float}, best first.

    query_embeddings: (Q, D) or (D,) floats, or quantized as the corpus is; these are decoded first.
    corpus: Codes of any codec; (N, D) floats; or what `quantize_embeddings` made. Which precision that was
    is seen by dtype and width, or named; int8 and uint8 need the ranges or the calibration_embeddings that
    they were made with.
    metric: "ip", "cosine", or "l2", whose scores are negative squared distances. A greater score is always
    better. Scores are those of the float query and the decoded row, so they keep the scale of floats, where
    sentence-transformers multiplies with numbers of steps.
    rescore: bits are searched by Hamming distance. With True, top_k * rescore_multiplier candidates
    are scored by the float query and their bits, decoded to 1 and -1 (or to what the codec has learned);
    with False the score is the share of equal bits, 0 to 1, and metric is not used. Other codes are always
    scored exactly, so both are the same. A store of better rows, as in `Codes.search`, has the last word
    over the candidates of any codes.
    Of equal scores the lowest corpus_id comes first. Fewer than top_k come from a smaller corpus.
    Raises GpuzipError for top_k below 1, and for a corpus that cannot be read as it is described.
    """
    who = "semantic_search"
    top_k, multiplier = whole(who, "top_k", top_k), check_multiplier(who, rescore_multiplier)
    check_metric(who, metric)
    queries = _stacked(who, "query_embeddings", query_embeddings)
    queries = queries[None] if queries.ndim == 1 else queries
    d = queries.shape[1] if queries.ndim == 2 and _name(queries) in _FLOATS else None
    if not isinstance(corpus, Codes):
        corpus = _stacked(who, "corpus", corpus)
        if _name(corpus) in _FLOATS:
            if not isinstance(rescore, bool):
                raise GpuzipError(
                    f"{who}: rescore came with a float corpus, whose scores are final. Omit it."
                )
            return _hits(*_search_floats(who, queries, corpus, top_k, metric))
        if ranges is None and calibration_embeddings is not None:
            ranges = _limits(who, "int8", [], None, calibration_embeddings)
        corpus = _codes(who, "corpus", corpus, precision, ranges, d)
    asked = queries if d is not None else _decoded(who, queries, corpus)
    Rows(who, asked, corpus.codec.d, corpus.device, "query_embeddings")  # for its checks
    if "hamming" not in corpus.codec.metrics:
        store = None if isinstance(rescore, bool) else rescore
        values, ids = corpus.search(asked, top_k, metric, None, store, multiplier)
    elif rescore is False:
        differing, ids = corpus.search(asked, top_k, "hamming")
        return _hits(1 - differing.double() / corpus.codec.d, ids)
    else:
        values, ids = corpus.search(asked, top_k, metric, None, rescore, multiplier, "hamming")
    return _hits(-values if metric == "l2" else values, ids)


def from_sentence_transformers(
    array: Any, precision: str | None = None, ranges: Any = None, d: int | None = None
) -> Codes:
    """Codes of an array or tensor that `quantize_embeddings` made, sentence-transformers' or ours.

    array: (N, D) or (N, ceil(D / 8)) int8 or uint8. precision: "int8", "uint8", "binary" or "ubinary"; not
    needed where dtype, d and ranges leave one. ranges: (2, D), those of "int8" and "uint8". d: columns of
    the rows that bits were made of, by default 8 a byte.
    Numbers of steps become codes of a `ScalarQuantizer`, decoded to the middle of the step; int8 is held as
    uint8, number + 128, which is searched faster. Bits become codes of a `BinaryQuantizer`, 1 and -1.
    Raises DtypeError for another dtype, GpuzipError for what does not fit or is not known.
    """
    who = "from_sentence_transformers"
    return _codes(who, "array", _stacked(who, "array", array), precision, ranges, d)


def to_sentence_transformers(codes: Codes, precision: str) -> np.ndarray[Any, Any]:
    """Codes as the array that sentence-transformers makes: the bytes of `quantize_embeddings`.

    precision: "int8" or "uint8" of an 8-bit `ScalarQuantizer`, "binary" or "ubinary" of a
    `BinaryQuantizer`, "float32" of any: the decoded rows.
    Raises GpuzipError for codes that hold no such numbers.
    """
    who, codec = "to_sentence_transformers", codes.codec
    if precision not in PRECISIONS:
        raise GpuzipError(f"{who}: precision is {precision!r}, one of {', '.join(PRECISIONS)} is needed.")
    if precision == "float32":
        return _numpy(codes.decode(torch.float32))
    if isinstance(codec, ScalarQuantizer) and codec.bits == 8 and precision in _SCALAR:
        held_signed = codec.signed
    elif isinstance(codec, BinaryQuantizer) and precision not in _SCALAR:
        held_signed = False
    else:
        raise GpuzipError(
            f"{who}: codes of {codec!r} hold no {precision}. ScalarQuantizer(bits=8) makes int8 and uint8, "
            "BinaryQuantizer binary and ubinary; float32 decodes any."
        )
    turned = held_signed != (precision in _SIGNED)
    data = _numpy(codes.data ^ 0x80 if turned else codes.data)
    return data.view(np.int8) if precision in _SIGNED else data


def _quantized(x: Tensor, precision: str, limits: Tensor | None) -> Tensor:
    if x.ndim == 1:
        return _quantized(x[None], precision, limits)[0]
    if precision == "float32":
        return x.to(torch.float32, copy=True)
    convert: Callable[[Tensor], Tensor] = _bits
    if limits is not None:
        start, step, _ = (t.to(x.device) for t in _steps(limits))
        convert = lambda block: _numbers(block, start, step)  # noqa: E731
    if precision in _SCALAR and limits is None:  # no rows at all
        return x.new_empty(x.shape, dtype=getattr(torch, precision))
    rows = max(1, (BLOCK_BYTES if x.device.type == "cpu" else 1 << 30) // (8 * x.shape[1]))
    data = torch.cat([convert(x[at : at + rows]) for at in range(0, max(1, len(x)), rows)])
    return data.bitwise_xor_(0x80).view(torch.int8) if precision in _SIGNED else data


def _bits(x: Tensor) -> Tensor:
    if x.device.type == "cpu":
        values = x.float() if x.dtype == torch.bfloat16 else x
        return torch.from_numpy(np.packbits(values.numpy() > 0, axis=1))
    return _bits_on_gpu(x)


def _bits_on_gpu(x: Tensor) -> Tensor:
    if x.dtype == torch.float64:  # float32 makes zeros of the smallest
        x = (x > 0).half()
    return mirrored(bucketize_packed(x, x.new_zeros((1, 1), dtype=torch.float32), 1))


def _numbers(x: Tensor, start: Tensor, step: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        return ((x - start) / step).floor_().clamp_(0, 255).to(torch.uint8)
    return scalar_encode(x, start, step, 255)


def _steps(limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """start and step of 255 steps, (D,) float32, step 1 where a column is constant; and where it is."""
    step = (limits[1] - limits[0]) / 255  # on a CPU: a GPU would multiply by 1 / 255
    constant = step == 0
    return limits[0], torch.where(constant, 1.0, step), constant


def _limits(
    who: str, precision: str, parts: Sequence[Tensor], ranges: Any, calibration: Any
) -> Tensor | None:
    """(2, D) float32 on the CPU: as given, of the calibration rows or of all parts; None of no rows."""
    D = parts[0].shape[-1] if parts else None
    if ranges is not None:
        return _checked_ranges(who, ranges, D)
    if calibration is not None:
        parts = [_floats(who, "calibration_embeddings", _stacked(who, "calibration_embeddings", calibration))]
        if parts[0].ndim != 2 or len(parts[0]) == 0:
            raise GpuzipError(
                f"{who}: calibration_embeddings came as {tuple(parts[0].shape)}, (n, D) with at least "
                "one row is needed. Pass rows like those of the corpus."
            )
    else:
        count = sum(1 if part.ndim == 1 else len(part) for part in parts)
        if count == 0:
            return None
        _check_count(who, precision, count)
    filled = [part for part in parts if len(part)]
    low, high = zip(
        *((part.amin(0).float().cpu(), part.amax(0).float().cpu()) for part in filled), strict=True
    )
    return _checked_ranges(who, torch.stack([torch.stack(low).amin(0), torch.stack(high).amax(0)]), D)


def _check_count(who: str, precision: str, count: int) -> None:
    if count == 1:
        raise GpuzipError(
            f"{who}: a single embedding came, which has no range for {precision}. Pass ranges or "
            "calibration_embeddings."
        )
    if count < 100:
        warnings.warn(
            f"{who}: ranges for {precision} are taken of {count} embeddings, at least 100 are "
            "recommended. Pass ranges, or calibration_embeddings of more.",
            stacklevel=4,
        )


def _checked_ranges(who: str, ranges: Any, D: int | None) -> Tensor:
    try:
        given = ranges if isinstance(ranges, Tensor) else torch.from_numpy(np.array(ranges, np.float32))
        found = given.detach().cpu().float()
    except (TypeError, ValueError) as error:
        raise GpuzipError(f"{who}: ranges are no numbers of shape (2, {D or 'D'}): {error}.") from error
    if found.ndim != 2 or len(found) != 2 or found.shape[1] != (D or found.shape[1]):
        raise GpuzipError(
            f"{who}: ranges are of shape {tuple(found.shape)}, (2, {D or 'D'}) is needed: the minimum and "
            "the maximum of every column."
        )
    wrong = (~(found[1] - found[0]).isfinite() | (found[1] < found[0])).nonzero().view(-1)
    if len(wrong):
        low, high = found[:, wrong[0]].tolist()
        raise GpuzipError(
            f"{who}: the range of column {int(wrong[0])} is {low} to {high}, finite numbers in ascending "
            "order are needed."
        )
    return found


def _stacked(who: str, name: str, x: Any) -> Matrix:
    """x, or the rows of a list as one matrix."""
    if isinstance(x, list):
        try:
            x = torch.stack(x) if x and isinstance(x[0], Tensor) else np.array(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GpuzipError(f"{who}: the rows of {name} make no matrix: {error}.") from error
    if not isinstance(x, Tensor | np.ndarray):
        raise DtypeError(
            f"{who}: {name} came as {type(x).__name__}, a torch tensor, a numpy array or a list "
            "of those is needed."
        )
    return x


def _floats(who: str, name: str, x: Matrix) -> Tensor:
    """A tensor of one row or a matrix, without NaN; an array's memory is shared where it can be."""
    if _name(x) not in _FLOATS:
        raise DtypeError(
            f"{who}: {name} came as {_name(x)}, float16, bfloat16, float32 or float64 is needed. "
            "Convert it, for example with x.float()."
        )
    if x.ndim not in (1, 2) or x.shape[-1] == 0:
        raise GpuzipError(
            f"{who}: {name} came with shape {tuple(x.shape)}, (N, D) or (D,) with at least one "
            "column is needed."
        )
    if isinstance(x, np.ndarray):
        native = x.dtype.newbyteorder("=") if x.dtype.kind == "f" else np.dtype(np.float32)  # bfloat16
        x = torch.from_numpy(np.require(x, native, ["C", "W"]))
    x = x.detach()
    if bool(torch.linalg.vector_norm(x).isnan()):
        row = int(x.isnan().view(-1, x.shape[-1]).any(1).nonzero()[0])
        raise GpuzipError(f"{who}: row {row} of {name} holds NaN. Drop such rows or replace the values.")
    return x


def _codes(who: str, name: str, array: Matrix, precision: str | None, ranges: Any, d: int | None) -> Codes:
    if _name(array) not in _SCALAR:
        raise DtypeError(
            f"{who}: {name} came as {_name(array)}, int8 or uint8 is needed. Make it with "
            "quantize_embeddings."
        )
    if array.ndim != 2 or array.shape[1] == 0:
        raise GpuzipError(
            f"{who}: {name} came with shape {tuple(array.shape)}, rows and columns (N, B) are needed."
        )
    data = array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, None, ["C", "W"]))
    precision = _precision(who, name, array, precision, ranges is not None, d)
    data = data.view(torch.uint8) ^ 0x80 if precision in _SIGNED else data
    B = data.shape[1]
    if precision not in _SCALAR:
        levels = torch.tensor([[-1.0], [1.0]], device=data.device).expand(2, d or 8 * B).contiguous()
        halves = Halves(torch.zeros(1, device=data.device), levels)
        return Codes(BinaryQuantizer(levels="sign", fitted=halves), data)
    if ranges is None:
        raise GpuzipError(
            f"{who}: {name} holds {precision}, which cannot be decoded without ranges. Pass those that it "
            "was made with, (2, D): the minimum and the maximum of every column."
        )
    start, step, constant = _steps(_checked_ranges(who, ranges, B))
    start = torch.where(constant, start - 0.5, start)  # so that code 0 is the constant
    steps = Steps(start.to(data.device), step.to(data.device), B)
    return Codes(ScalarQuantizer(range="given", steps=255, fitted=steps), data)


def _precision(who: str, name: str, array: Matrix, precision: str | None, scaled: bool, d: int | None) -> str:
    """The precision that was named or is the only one that fits; raises GpuzipError."""
    kind, B = _name(array), array.shape[1]
    scalar, binary = (kind, "binary" if kind == "int8" else "ubinary")
    if precision not in (None, scalar, binary):
        raise GpuzipError(
            f"{who}: precision is {precision!r} and {name} is {kind}, of which {scalar!r} and "
            f"{binary!r} are made."
        )
    fits = {scalar: d in (None, B), binary: d is None or -(-d // 8) == B}
    if scaled and precision is None and fits[scalar]:
        return scalar
    left = [one for one in fits if fits[one] and precision in (None, one)]
    if not left:
        raise GpuzipError(
            f"{who}: {name} has {B} columns of {kind}; of d={d}, {scalar} has {d} and {binary} "
            f"{-(-(d or 0) // 8)}."
        )
    if len(left) > 1:
        raise GpuzipError(
            f"{who}: {name} of {kind} may be {scalar} or {binary}. Name the precision, or pass the "
            f"ranges of {scalar}."
        )
    return left[0]


def _decoded(who: str, queries: Matrix, codes: Codes) -> Tensor:
    """Quantized queries as floats: codes of the corpus's codec."""
    codec = codes.codec
    bytes_of_codes = isinstance(codec, BinaryQuantizer) or (
        isinstance(codec, ScalarQuantizer) and codec.bits == 8
    )
    if not bytes_of_codes or _name(queries) not in _SCALAR or queries.shape[-1] != codec.code_size:
        raise DtypeError(
            f"{who}: query_embeddings came as {tuple(queries.shape)} {_name(queries)}, (Q, {codec.d}) floats "
            "are needed, or queries that were quantized as the corpus was."
        )
    data = torch.as_tensor(queries, device=codes.device)
    data = data.view(torch.uint8) ^ 0x80 if data.dtype == torch.int8 else data
    held_signed = isinstance(codec, ScalarQuantizer) and codec.signed
    return Codes(codec, data ^ 0x80 if held_signed else data).decode()


def _search_floats(who: str, queries: Matrix, corpus: Matrix, k: int, metric: str) -> tuple[Tensor, Tensor]:
    rows = Rows(who, corpus, name="corpus")
    asked = Rows(who, queries, rows.d, rows.device, "query_embeddings")
    store, k = rows.block(0, rows.n), min(k, rows.n)
    norms = torch.linalg.vector_norm(store, dim=1, dtype=torch.float32)
    values = torch.empty((asked.n, k), device=rows.device)
    ids = torch.empty((asked.n, k), dtype=torch.int64, device=rows.device)
    step = max(1, WORKSPACE // (query_bytes(rows.n, k) + 8 * rows.d)) if k else 1
    for start in range(0, asked.n if k else 0, step):
        block = asked.block(start, start + step).to(rows.device, torch.float32)
        found = best(float_scorer(store, lambda: norms, block, metric, None), k)
        values[start : start + step], ids[start : start + step] = found
    return values, ids


def _hits(scores: Tensor, ids: Tensor) -> Hits:
    return [
        [{"corpus_id": i, "score": s} for i, s in zip(*row, strict=True)]
        for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


def _like(given: Any, out: Tensor) -> Any:
    return out if isinstance(given, Tensor) else out.numpy()


def _numpy(x: Tensor) -> np.ndarray[Any, Any]:
    copied: np.ndarray[Any, Any] = np.array(x.cpu().numpy())
    return copied


def _name(x: Matrix) -> str:
    return str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else str(x.dtype.name)
