"""Headers with valid checksums and invalid contents are refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import gpuzip
from tests.attacks.forge import (
    Forgery,
    N,
    canonical,
    check_all_refuse,
    check_codec_refused,
    check_refused,
    outcomes,
)

HEADER_TEXTS = {
    "not json": "must be JSON",
    "": "must be JSON",
    "'": "must be JSON",
    '"\ud7ff"': "must have a format number",
    "[]": "must have a format number",
    "null": "must have a format number",
    "NaN": "",
    "{}": "must have a format number",
    '{"format":null}': "must have a format number",
    '{"format":"1"}': "must have a format number",
    '{"format":1.0}': "must have a format number",
    '{"format":true}': "",
    '{"format":NaN}': "",
    '{"format":1}': "",
    '{"format":1e999}': "must have a format number",
    '{"format":2}': "",
    '{"format":3}': "newer",
    '{"format":' + "9" * 1000 + "}": "newer",
    '{"format":' + "9" * 5000 + "}": "",
    '{"format":1,"n":' + "9" * 5000 + "}": "",
    "[" * 100_000: "",
    '{"format":1,"config":' + '{"a":' * 100_000: "",
}


@pytest.mark.parametrize("text", HEADER_TEXTS, ids=lambda text: text[:24])
def test_refuses_an_empty_or_foreign_header(original: bytes, path: Path, text: str):
    check_all_refuse(path, Forgery.of(original).bytes(edit=lambda _: text), HEADER_TEXTS[text])


def test_refuses_a_header_of_any_depth(original: bytes, path: Path):
    """Parsing JSON and writing it for the digest fail at different depths."""
    forgery = Forgery.of(original)
    forgery.header["config"] = "?"
    limit = sys.getrecursionlimit()
    variants = [
        forgery.bytes(edit=lambda text, d=depth: text.replace('"?"', "[" * d + "]" * d))  # type: ignore[misc]
        for depth in [*range(50, limit - 100, 50), *range(limit - 100, limit + 20)]
    ]
    assert outcomes(path, variants) == {"FormatError"}


@pytest.mark.parametrize("depth", [1, 60, 120])
def test_refuses_a_sealed_header_of_nested_lists(original: bytes, path: Path, depth: int):
    forgery = Forgery.of(original)
    forgery.header["config"]["m"] = json.loads("[" * depth + "]" * depth)
    path.write_bytes(forgery.bytes())
    for read in (gpuzip.load, gpuzip.open):
        check_refused(path, read)


MISSING = object()
NO_MEASURES: list[Any] = [None, [], "x", "nan", "0.5", True, 10**400, float("nan")]
QUALITY: dict[str, Any] = {"cosine": 0.5, "row_cosine": 0.5, "mse": 0.5}
FIELDS: list[tuple[str, list[Any], str]] = [
    ("format", [3, 10**30], "newer than this version reads"),
    ("format", [-1, 0, 1, True, 1.0, "1", None, [], MISSING], ""),
    ("block_rows", [-1, 0, True, 6.0, "6", None, [], float("nan"), 2**63, MISSING], ""),
    ("n", [-1, True, 6.0, "6", None, [], float("nan"), float("inf"), MISSING], ""),
    ("n", [0, N - 1, N + 1, 10**18], "codes must be"),
    ("n", [2**63, 10**400], "wrong types"),
    ("d", [2**63, 10**400], "wrong types"),
    ("d", [-1, True, 4.0, "4", None, [], float("nan"), MISSING], ""),
    ("dtype", ["int8", "Float32", "", "load", None, 1, [], {}, MISSING], ""),
    ("codec", [None, 1, [], {}, MISSING], ""),
    ("config", [None, 1, [], "", MISSING], ""),
    ("library", [None, 1, [], MISSING], ""),
    ("checksums", [None, 1, {"state.x": 1}, "", MISSING], ""),
    ("quality", [1, "x", [], {}, True, QUALITY | {"unheard_of": 1}, MISSING], ""),
    ("quality", [QUALITY | {"cosine": v} for v in NO_MEASURES], ""),
    ("unheard_of", [1], ""),
]


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [(field, value, match) for field, values, match in FIELDS for value in values],
    ids=lambda v: "missing" if v is MISSING else str(v)[:20],
)
def test_refuses_a_sealed_header_with_wrong_types(
    original: bytes, path: Path, field: str, value: object, match: str
):
    forgery = Forgery.of(original)
    forgery.header[field] = value
    if value is MISSING:
        del forgery.header[field]
    check_all_refuse(path, forgery.bytes(), match)


@pytest.mark.parametrize("codec", ["nope", "", "PQ", "codecs", "../pq"])
def test_names_an_unknown_codec(original: bytes, path: Path, codec: str):
    forgery = Forgery.of(original)
    forgery.header["codec"] = codec
    check_codec_refused(path, forgery.bytes(), f"'{codec}'")
    with pytest.raises(gpuzip.UnknownCodecError):
        gpuzip.open(path)


SETTINGS: list[tuple[str, list[Any]]] = [
    ("m", ["2", 2.0, None, True, 0, -2, 1, 3, 4, 2**31, 2**63, 10**400, float("nan"), [], MISSING]),
    ("nbits", ["1", 1.0, None, True, 0, -1, 2, 17, 63, 10**12, 10**400, [], MISSING]),
    ("d", ["4", 4.0, None, True, 0, -4, 2, 3, 5, 8, 2**63, 10**400, [], MISSING]),
    ("pad", [0, 1, None, "", [], MISSING]),
    ("seed", ["0", 0.0, True, [], MISSING]),
    ("unheard_of", [1]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in SETTINGS for value in values],
    ids=lambda v: "missing" if v is MISSING else str(v)[:20],
)
def test_refuses_sealed_settings_that_do_not_fit_the_tensors(
    original: bytes, path: Path, name: str, value: object
):
    forgery = Forgery.of(original)
    forgery.header["config"][name] = value
    if value is MISSING:
        del forgery.header["config"][name]
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("d", [0, 1, 3, 5, 8, 2**40, 2**63 - 1])
def test_a_width_that_is_not_the_codecs_is_refused(original: bytes, path: Path, d: int):
    forgery = Forgery.of(original)
    forgery.header["d"] = d
    check_codec_refused(path, forgery.bytes(), "columns")


REWORDED = {
    "key twice": ('"n":6', '"n":7,"n":6'),
    "key twice, the same": ('"n":6', '"n":6,"n":6'),
    "spaces": ('"n":6', '"n": 6'),
    "escapes": ('"codec"', '"\\u0063odec"'),
    "a space at the end": ('"row_cosine":1.0}}', '"row_cosine":1.0}} '),
    "NaN": ('"n":6', '"n":NaN'),
    "a number that is none": ('"n":6', '"n":1e999'),
}


@pytest.mark.parametrize("name", REWORDED)
def test_refuses_a_header_in_another_spelling(original: bytes, path: Path, name: str):
    """Another reader could read a second spelling differently."""
    old, new = REWORDED[name]
    assert old in canonical(Forgery.of(original).header)
    check_all_refuse(path, Forgery.of(original).bytes(edit=lambda text: text.replace(old, new)))
