"""Settings of codecs as short text, and back: FAISS's factory strings, and our own words where it has none.

A class lists its words in `spec_words`. A word has {settings} in braces; its value holds the settings that
the word implies. The first word that fits is written, and all are read. Other settings follow in parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from gpuzip.errors import GpuzipError
from gpuzip.rotations import OF_SUBSPACES, Rotation

Words = Mapping[str, Mapping[str, Any]]

Spelled = TypeVar("Spelled")  # a class with `spec_words`

_COMMA = re.compile(r",(?![^(]*\))")
_PART = re.compile(r"\s*([^\s()]+)\s*(?:\(([^()]*)\))?\s*")
_SLOT = re.compile(r"\{(\w+)\}")
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_UNIT = ("L2norm", "L2Norm")  # after a rotation: Rotation(normalize=True)
_APART = ("rotation", "normalize")  # fields that are words of their own
_CONSTANTS = {"True": True, "False": False, "None": None}


def spec_of(codec: Any) -> str:
    """The text of a codec's settings, which `read_spec` reads. Raises GpuzipError if there is none."""
    settings, rotation = _settings(codec), codec.rotation
    try:
        type(codec)(**settings)
    except GpuzipError as error:  # a range that the caller gave is not in the settings
        raise GpuzipError(f"{type(codec).__name__}.spec: settings must be text: {error}") from error
    parts = [_written(codec, settings | _without(codec, rotation is None))]
    if isinstance(rotation, Rotation):
        of_rotation = _settings(rotation)
        if rotation.kind in OF_SUBSPACES:
            of_rotation["m"] = of_rotation["m"] or settings.get("m")
        parts = [_written(rotation, of_rotation), *_UNIT[:1] * rotation.normalize, *parts]
    return ",".join(parts)


def read_spec(text: str, codecs: Iterable[type[Spelled]]) -> Spelled:
    """The codec, not fitted, that a text stands for. Raises GpuzipError for text that is not a spec."""
    if not isinstance(text, str):
        raise GpuzipError(f"from_spec: text must be a str such as 'OPQ48,PQ48x8'; got {text!r}.")
    *rotations, last = _COMMA.split(text)
    codec, settings = _read(text, last, "codec", list(codecs))
    if settings.get("rotation") is not None or ("rotation" in settings and rotations):
        raise GpuzipError(
            f"from_spec: the rotation must come before the codec; got {text!r}. Write, for example, 'RR,SQ8'."
        )
    if not rotations:
        return codec(**settings)  # type: ignore[no-any-return]
    _, of_rotation = _read(text, rotations[0], "rotation", [Rotation])
    if rotations[1:] and (len(rotations) > 2 or rotations[1].strip() not in _UNIT):
        raise GpuzipError(
            f"from_spec: only {_UNIT[0]} and a codec may follow a rotation; got {','.join(rotations[1:])!r} "
            f"in {text!r}."
        )
    rotation = Rotation(**of_rotation, normalize=len(rotations) > 1)
    if rotation.m == settings.get("m"):
        rotation = replace(rotation, m=None)  # the codec's own
    return codec(**settings, rotation=rotation)  # type: ignore[no-any-return]


def _without(kind: Any, plain: bool = True) -> dict[str, Any]:
    """The setting rotation=None, for a class that has a rotation by default."""
    default = next((field.default for field in fields(kind) if field.name == "rotation"), None)
    return {} if default is None or not plain else {"rotation": None}


def _settings(thing: Any) -> dict[str, Any]:
    """Settings by name, without learned state and rotation."""
    return {name: getattr(thing, name) for name in _names(thing)}


def _names(thing: Any) -> list[str]:
    return [field.name for field in fields(thing) if field.repr and field.name not in _APART]


def _written(thing: Any, settings: dict[str, Any]) -> str:
    defaults = {field.name: field.default for field in fields(thing)}
    for word, fixed in thing.spec_words.items():
        slots = _SLOT.findall(word)
        if None in [settings[name] for name in slots] or fixed != {name: settings[name] for name in fixed}:
            continue
        left = [name for name in settings if name not in (*slots, *fixed)]
        others = [f"{name}={settings[name]}" for name in left if settings[name] != defaults[name]]
        text: str = word.format_map({name: repr(settings[name]).removesuffix(".0") for name in slots})
        return text + (f"({','.join(others)})" if others else "")
    name = type(thing).__name__
    asked = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    raise GpuzipError(f"{name}.spec: no word has {asked}. Give the settings that are None, or fit it first.")


def _read(text: str, part: str, what: str, kinds: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """The class that has a part of the text as its word, and the settings in it."""
    name, inside = (_PART.fullmatch(part) or _PART.fullmatch("-")).groups()  # type: ignore[union-attr]
    for kind in kinds:
        for word, fixed in kind.spec_words.items():
            slots = _pattern(word).fullmatch(name)
            if slots:
                said = {**fixed, **{name: _value(value) for name, value in slots.groupdict().items()}}
                return kind, said | _others(text, kind, inside or "", said)
    known = ", ".join(word for kind in kinds for word in kind.spec_words)
    hint = _near(name or part.strip(), kinds)
    raise GpuzipError(f"from_spec: {what} must be one of {known}; got {part.strip()!r} in {text!r}.{hint}")


def _near(name: str, kinds: Sequence[Any]) -> str:
    """A hint at the word that looks most like a name, with the numbers of the name; "" if none does."""
    words = {_shape(_SLOT.sub("0", word)): (kind, word) for kind in kinds for word in kind.spec_words}
    numbers = re.findall(_NUMBER, name)
    for shape in get_close_matches(_shape(name), list(words), n=5):
        kind, word = words[shape]
        if len(_SLOT.findall(word)) in (0, len(numbers)):
            near = _SLOT.sub("{}", word).format(*numbers)
            slots = _pattern(word).fullmatch(near)
            assert slots is not None
            with suppress(GpuzipError):
                kind(**{**kind.spec_words[word], **{k: _value(v) for k, v in slots.groupdict().items()}})
                return f" Did you mean {near}?"
    return ""


def _shape(name: str) -> str:
    return re.sub(_NUMBER, "#", name).lower()


def _pattern(word: str) -> re.Pattern[str]:
    pieces = enumerate(_SLOT.split(word))  # text and names by turns
    return re.compile("".join(f"(?P<{p}>{_NUMBER})" if i % 2 else re.escape(p) for i, p in pieces))


def _others(text: str, kind: Any, inside: str, said: dict[str, Any]) -> dict[str, Any]:
    """Settings in parentheses: name=value, ..."""
    names = [name for name in (*_names(kind), *_without(kind)) if name not in said]
    others: dict[str, Any] = {}
    for item in inside.split(",") if inside.strip() else ():
        name, equals, value = (piece.strip() for piece in item.partition("="))
        if not equals or name not in names:
            raise GpuzipError(
                f"from_spec: settings must be name=value with {', '.join(names)}; got {item.strip()!r} in "
                f"{text!r}."
            )
        others[name] = _value(value)
    return others


def _value(text: str) -> Any:
    """A number, True, False, None, or the word as it is."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
