"""Plots of embeddings and their codes on matplotlib axes. Needs matplotlib.

Every function draws on `ax` and returns it. With ax=None it makes a pyplot figure of the width of a text
column, which notebooks show. No rcParams are changed. Values can be tensors on any device, arrays, lists or
Codes, which are decoded unless a function asks for codes.
"""

from gpuzip.plots.bits_over_bytes import bit_against_byte
from gpuzip.plots.codewords import use_of_codewords
from gpuzip.plots.counts import histogram
from gpuzip.plots.errors import error_by_dimension
from gpuzip.plots.floats_over_bytes import float_against_int8
from gpuzip.plots.front import pareto
from gpuzip.plots.one_vector import vector
from gpuzip.plots.ranks import change_of_rank
from gpuzip.plots.recalls import recall_against_bytes
from gpuzip.plots.spectra import spectrum
from gpuzip.plots.values import CodecRecall

__all__ = [
    "CodecRecall",
    "bit_against_byte",
    "change_of_rank",
    "error_by_dimension",
    "float_against_int8",
    "histogram",
    "pareto",
    "recall_against_bytes",
    "spectrum",
    "use_of_codewords",
    "vector",
]
