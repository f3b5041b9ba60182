"""The operators, one file each: schema, reference, shape rule, samples and the name of the kernel."""

from gpuzip.ops._define import OPS, Op
from gpuzip.ops.adc import adc_gather, adc_scan
from gpuzip.ops.assign import assign
from gpuzip.ops.bits import code_bytes, pack_bits, unpack_bits
from gpuzip.ops.centroid_sums import centroid_sums
from gpuzip.ops.centroid_update import centroid_update
from gpuzip.ops.decode import decode
from gpuzip.ops.encode import encode
from gpuzip.ops.groups import max_of_groups
from gpuzip.ops.kmeans_step import kmeans_step
from gpuzip.ops.lloyd import lloyd
from gpuzip.ops.topk import topk

__all__ = [
    "OPS",
    "Op",
    "adc_gather",
    "adc_scan",
    "assign",
    "centroid_sums",
    "centroid_update",
    "code_bytes",
    "decode",
    "encode",
    "kmeans_step",
    "lloyd",
    "max_of_groups",
    "pack_bits",
    "topk",
    "unpack_bits",
]
