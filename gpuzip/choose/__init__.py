"""The choice of a codec for a size or a quality: a grid of codecs, measured on held-out rows."""

from gpuzip.choose.by_outcome import compress_for, table_for
from gpuzip.choose.meeting import meet
from gpuzip.choose.table import Table, Tried
from gpuzip.choose.target import Asked, Target, table_target, target_of
from gpuzip.choose.trial import FEWEST, Trials

__all__ = [
    "FEWEST",
    "Asked",
    "Table",
    "Target",
    "Trials",
    "Tried",
    "compress_for",
    "meet",
    "table_for",
    "table_target",
    "target_of",
]
