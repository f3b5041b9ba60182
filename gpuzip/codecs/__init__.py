"""Codecs: one file each, what all have in common, and the registry."""

from gpuzip.codecs.base import Codec
from gpuzip.codecs.binary import BinaryQuantizer
from gpuzip.codecs.half import HalfQuantizer
from gpuzip.codecs.lloyd_max import LloydMaxQuantizer
from gpuzip.codecs.lloyd_max_mixed import MixedLloydMaxQuantizer
from gpuzip.codecs.pq import ProductQuantizer
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.rabitq import RaBitQuantizer
from gpuzip.codecs.registry import CODECS, codec_class, from_spec, register_codec
from gpuzip.codecs.residual import ResidualQuantizer
from gpuzip.codecs.scalar import ScalarQuantizer

__all__ = [
    "CODECS",
    "BinaryQuantizer",
    "Codec",
    "HalfQuantizer",
    "LloydMaxQuantizer",
    "MixedLloydMaxQuantizer",
    "ProductQuantizer",
    "Quantizer",
    "RaBitQuantizer",
    "ResidualQuantizer",
    "ScalarQuantizer",
    "codec_class",
    "from_spec",
    "register_codec",
]
