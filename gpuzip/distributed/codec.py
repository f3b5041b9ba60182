"""A codec as bytes, and what tells two codecs apart."""

from __future__ import annotations

import hashlib
import io
from weakref import WeakKeyDictionary

from gpuzip.api import load_codec
from gpuzip.codecs import Codec, Quantizer
from gpuzip.errors import GpuzipError

_digests: WeakKeyDictionary[Codec, bytes] = WeakKeyDictionary()


def packed(codec: Codec) -> bytes:
    """The fitted codec as an .ezip file of no rows."""
    file = io.BytesIO()
    codec.to("cpu").save(file)
    return file.getvalue()


def unpacked(content: bytes) -> Quantizer:
    """The codec that `packed` packed, on the CPU."""
    return check_codec("distributed", load_codec(content))


def digest_of(codec: Codec) -> bytes:
    """The same for codecs that make the same codes. Found once per codec, which does not change."""
    found = _digests.get(codec)
    if found is None:
        found = _digests[codec] = hashlib.sha256(packed(codec.stamped(None))).digest()
    return found


def check_codec(who: str, codec: object, fitted: bool = True) -> Quantizer:
    """The argument, if it is a codec."""
    if not isinstance(codec, Quantizer):
        raise GpuzipError(f"{who}: codec must be a codec such as ScalarQuantizer(8); got {codec!r:.200}.")
    if fitted:
        codec.check_fitted(who)
    return codec
