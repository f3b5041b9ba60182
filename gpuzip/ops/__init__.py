"""The operators, one file each: schema, reference, shape rule, samples and the name of the kernel."""

from gpuzip.ops._define import OPS, Op
from gpuzip.ops.adc import adc_gather, adc_scan
from gpuzip.ops.assign import assign
from gpuzip.ops.bits import code_bytes, pack_bits, unpack_bits
from gpuzip.ops.centroid_sums import centroid_sums
from gpuzip.ops.decode import decode
from gpuzip.ops.groups import max_of_groups
from gpuzip.ops.product_scan import product_scan
from gpuzip.ops.topk import topk

__all__ = [
    "OPS",
    "Op",
    "adc_gather",
    "adc_scan",
    "assign",
    "centroid_sums",
    "code_bytes",
    "decode",
    "max_of_groups",
    "pack_bits",
    "product_scan",
    "topk",
    "unpack_bits",
]
