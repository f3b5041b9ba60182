"""Which arguments of `gpuzip.compress` go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuzip.errors import GpuzipError

_OF_PRODUCTS = {"m", "nbits", "pad"}
_OF_RECALL = {"k", "metric"}
_OF_OUTCOMES = {
    *("max_bytes", "bits_per_dim", "ratio", "min_cosine", "min_recall"),
    *("rescore", "for_", "return_table", *_OF_RECALL),
}
_OF_IMPORTANCE = {"importance", "max_bytes", "bits_per_dim", "max_bits"}


def given_of(arguments: Mapping[str, Any]) -> set[str]:
    """Names of the arguments that a caller gave: those that are neither None nor False."""
    return {name for name, value in arguments.items() if value is not None and value is not False}


def check_together(who: str, given: set[str], for_: str | None) -> None:
    """Raises GpuzipError for arguments that would be ignored beside the others."""
    if "importance" in given:
        _refuse(who, given & _OF_PRODUCTS, "importance chooses the codes")
        _refuse(who, given - _OF_IMPORTANCE, "importance goes with max_bytes or bits_per_dim")
        return
    if given & (_OF_OUTCOMES - _OF_RECALL):
        _refuse(who, given & _OF_PRODUCTS, "an outcome chooses the codec")
    _refuse(who, given & {"max_bits"}, "max_bits goes with importance")
    if not (given & {"min_recall", "rescore"} or for_ == "search"):
        _refuse(who, given & _OF_RECALL, "k and metric go with min_recall, rescore or for_='search'")


def _refuse(who: str, names: set[str], reason: str) -> None:
    if names:
        listed = ", ".join(sorted(names))
        raise GpuzipError(
            f"{who}: {reason}; {listed} would be ignored. Leave it out, or give what it goes with."
        )
