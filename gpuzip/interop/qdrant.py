"""Points of Qdrant whose vectors or payloads are codes, and back. Needs qdrant-client."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.extras import needs
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop._values import HALF, UINT8, codes_of, kind_of, rows_of, values_of

_KINDS = (UINT8, HALF)
_LAYOUTS = ("vector", "payload")


def to_qdrant(
    codes: Codes,
    ids: Any = None,
    payloads: Sequence[dict[str, Any]] | None = None,
    *,
    layout: str = "vector",
    using: str | None = None,
    key: str = "codes",
) -> list[Any]:
    """Convert codes to points of Qdrant.

    Parameters
    ----------
    codes : Codes
        For "vector": codes of a `ScalarQuantizer` of 8 unsigned bits with per="tensor", for a collection of
        datatype UINT8, or of a `HalfQuantizer` of float16, for one of FLOAT16. For "payload": any.
    ids : N ints or UUIDs, optional
        Ids of the points. Default: the row numbers.
    payloads : sequence of N dicts, optional
        Payloads of the points. Default: none.
    layout : {"vector", "payload"}, default "vector"
        "vector": the numbers are the vector that Qdrant searches. "payload": the codes are base64 text in the
        payload, and the points have no vector until you set `point.vector`.
    using : str, optional
        Name of the vector, for collections of named vectors.
    key : str, default "codes"
        Key of the text in the payload.

    Returns
    -------
    list of qdrant_client.models.PointStruct
        The points, for `client.upsert`.

    Raises
    ------
    GpuzipError
        For other codes, or ids and payloads that do not fit.
    MissingDependencyError
        If qdrant-client is not installed.

    Notes
    -----
    Qdrant's EUCLID of uint8, times the step, is the root of the distance that `search` finds by "l2". Its DOT
    and COSINE of uint8 are not those of the rows, since code 0 does not stand for 0. With float16 all are
    those of the decoded rows. A collection of COSINE keeps normalized vectors: codes do not come back from
    them.

    Examples
    --------
    >>> import gpuzip, torch
    >>> codes = gpuzip.ScalarQuantizer(per="tensor").fit(torch.randn(9, 4)).encode(torch.randn(9, 4))
    >>> points = gpuzip.to_qdrant(codes)  # doctest: +SKIP
    """
    who, models = "to_qdrant", _models()
    if layout not in _LAYOUTS:
        raise GpuzipError(f"{who}: layout must be 'vector' or 'payload'; got {layout!r}.")
    N = len(check_codes(who, codes))
    for name, given in (("ids", ids), ("payloads", payloads)):
        if given is not None and len(given) != N:
            raise GpuzipError(f"{who}: {name} must be {N}, one per code; got {len(given)}.")
    known = [dict(payload) for payload in payloads] if payloads is not None else [{} for _ in range(N)]
    vectors: list[Any] = [{}] * N
    if layout == "vector":
        vectors = _numbers(who, codes)
        vectors = vectors if using is None else [{using: vector} for vector in vectors]
    else:
        for payload, row in zip(known, codes.packed.data[:].cpu().numpy(), strict=True):
            payload[key] = base64.b64encode(row.tobytes()).decode()
    keys = [_plain(id) for id in (range(N) if ids is None else ids)]
    return [
        models.PointStruct(id=id, vector=vector, payload=payload)
        for id, vector, payload in zip(keys, vectors, known, strict=True)
    ]


def from_qdrant(
    points: Sequence[Any], *, codec: Codec | None = None, using: str | None = None, key: str = "codes"
) -> Codes:
    """Convert points of Qdrant to Codes.

    Parameters
    ----------
    points : sequence of points
        What `client.scroll`, `retrieve` or `query_points` return: with their payload if it holds codes under
        the key, else with their vectors.
    codec : Codec, optional
        The codec that made them. Default: vectors of float16 decode to themselves.
    using : str, optional
        Name of the vector, for collections of named vectors.
    key : str, default "codes"
        Key of the text in the payload.

    Returns
    -------
    Codes
        The codes, in the order of the points, whose ids are `[point.id for point in points]`.

    Raises
    ------
    GpuzipError
        If there are no points, one has no vector, or the codec is not known.
    FormatError
        If vectors or texts are not those of codes.

    Examples
    --------
    >>> points, _ = client.scroll("vectors", limit=100, with_vectors=True)  # doctest: +SKIP
    >>> codes = gpuzip.from_qdrant(points, codec=codec)  # doctest: +SKIP
    """
    who = "from_qdrant"
    if not len(points):
        raise GpuzipError(f"{who}: points must have at least one; got none.")
    if all(key in (point.payload or {}) for point in points):
        return _of_texts(who, key, [point.payload[key] for point in points], codec)
    vectors: list[Any] = [
        point.vector if using is None else (point.vector or {}).get(using) for point in points
    ]
    if any(not isinstance(vector, list) or not vector for vector in vectors):
        raise GpuzipError(
            f"{who}: points must have a vector, or codes under {key!r} in the payload. Ask Qdrant for them "
            "with_vectors=True or with_payload=True, and pass using= for named vectors."
        )
    kind = HALF if codec is None else kind_of(codec)
    if kind not in _KINDS:
        raise GpuzipError(f"{who}: codec must be one of uint8 or float16 vectors; got {codec!r}.")
    data = _bytes_of(who, kind, vectors)
    return codes_of(who, kind, data, len(vectors[0]), codec)


def _numbers(who: str, codes: Codes) -> list[Any]:
    kind, data = values_of(who, codes, _KINDS)
    rows: list[Any] = (data if kind == UINT8 else data.view(torch.float16)).tolist()
    return rows


def _plain(id: Any) -> Any:
    return id.item() if isinstance(id, np.generic | Tensor) else id


def _bytes_of(who: str, kind: str, vectors: list[list[float]]) -> Tensor:
    """The (N, B) bytes of vectors. Raises FormatError for numbers that the kind does not have."""
    if len({len(vector) for vector in vectors}) > 1:
        raise FormatError(f"{who}: vectors must have one length; got several.")
    exact = torch.tensor(vectors, dtype=torch.float64, device="cpu")
    values = exact.to(torch.uint8 if kind == UINT8 else torch.float16)
    if not torch.equal(values.double(), exact):
        raise FormatError(
            f"{who}: vectors must hold numbers of {kind}; got others. A collection of distance COSINE keeps "
            "normalized vectors: read the codes from the payload."
        )
    return values.view(torch.uint8)


def _of_texts(who: str, key: str, texts: list[Any], codec: Codec | None) -> Codes:
    if codec is None:
        raise GpuzipError(f"{who}: codec must be given for codes in payloads; got None. Pass codec=.")
    try:
        rows = [base64.b64decode(text, validate=True) for text in texts]
    except (binascii.Error, TypeError, ValueError) as error:
        raise FormatError(f"{who}: {key!r} of payloads must be base64 text: {error}.") from error
    data = rows_of(who, key, rows)
    if data.shape[1] != codec.code_size:
        raise FormatError(
            f"{who}: {key!r} must hold {codec.code_size} bytes for this codec; it holds {data.shape[1]}."
        )
    return Codes(codec, data)


def _models() -> Any:
    with needs("qdrant-client", "qdrant"):
        from qdrant_client import models
    return models
