"""Check which arguments of `gpuzip.compress` are given together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuzip.errors import GpuzipError

_OF_PRODUCTS = {"m", "nbits", "pad"}
_OF_RECALL = {"k", "metric", "queries"}
_OF_OUTCOMES = {
    *("max_bytes", "bits_per_dim", "ratio", "min_cosine", "min_recall"),
    *("rescore", "for_", "return_table", *_OF_RECALL),
}
_OF_IMPORTANCE = {"importance", "max_bytes", "bits_per_dim", "max_bits"}


def given_of(arguments: Mapping[str, Any]) -> set[str]:
    """Names of the arguments that are given: neither None nor False."""
    return {name for name, value in arguments.items() if value is not None and value is not False}


def check_together(who: str, given: set[str], for_: str | None) -> None:
    """Raise GpuzipError for arguments that would be ignored beside the others."""
    if "importance" in given:
        _refuse(who, given & _OF_PRODUCTS, "must not be given with importance, which chooses the codes")
        _refuse(who, given - _OF_IMPORTANCE, "must not be given with importance, which takes a size")
        return
    if given & (_OF_OUTCOMES - _OF_RECALL):
        _refuse(
            who, given & _OF_PRODUCTS, "must not be given with a size or a quality, which choose the codec"
        )
    _refuse(who, given & {"max_bits"}, "must be given with importance")
    if not (given & {"min_recall", "rescore"} or for_ == "search"):
        _refuse(who, given & _OF_RECALL, "must be given with min_recall, rescore or for_='search'")


def _refuse(who: str, names: set[str], rule: str) -> None:
    if names:
        listed = ", ".join(sorted(names))
        raise GpuzipError(f"{who}: {listed} {rule}. Omit what would be ignored.")
