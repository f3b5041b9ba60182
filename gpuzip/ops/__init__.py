"""The operators, one file each with schema, reference, shape rule, samples and the name of the kernel."""

from gpuzip.ops._define import OPS, Op
from gpuzip.ops._dispatch import loops_are_used, use_loops
from gpuzip.ops.adc import adc_gather, adc_scan
from gpuzip.ops.assign import assign
from gpuzip.ops.beam_search import beam_search
from gpuzip.ops.bits import bits_above, code_bytes, pack_bits, unpack_bits
from gpuzip.ops.bucketize import bucketize, bucketize_packed
from gpuzip.ops.centroid_sums import centroid_sums
from gpuzip.ops.centroid_update import centroid_update
from gpuzip.ops.decode import decode, decode_rotated, rows_by_id
from gpuzip.ops.encode import encode
from gpuzip.ops.groups import max_of_groups
from gpuzip.ops.hamming import hamming_gather, hamming_scan
from gpuzip.ops.kmeans_step import kmeans_step
from gpuzip.ops.levels import rows_of_levels
from gpuzip.ops.lloyd import lloyd
from gpuzip.ops.product_scan import product_scan
from gpuzip.ops.rabitq_encode import rabitq_encode, rabitq_signs, zero_rows
from gpuzip.ops.rans import rans_decode, rans_encode
from gpuzip.ops.rescore import rescore, rescore_codes
from gpuzip.ops.scalar_encode import scalar_bytes, scalar_decode, scalar_encode
from gpuzip.ops.scalar_scan import scalar_scan
from gpuzip.ops.topk import topk
from gpuzip.ops.trellis import trellis_quantize

__all__ = [
    "OPS",
    "Op",
    "adc_gather",
    "adc_scan",
    "assign",
    "beam_search",
    "bits_above",
    "bucketize",
    "bucketize_packed",
    "centroid_sums",
    "centroid_update",
    "code_bytes",
    "decode",
    "decode_rotated",
    "encode",
    "hamming_gather",
    "hamming_scan",
    "kmeans_step",
    "lloyd",
    "loops_are_used",
    "max_of_groups",
    "pack_bits",
    "product_scan",
    "rabitq_encode",
    "rabitq_signs",
    "rans_decode",
    "rans_encode",
    "rescore",
    "rescore_codes",
    "rows_by_id",
    "rows_of_levels",
    "scalar_bytes",
    "scalar_decode",
    "scalar_encode",
    "scalar_scan",
    "topk",
    "trellis_quantize",
    "unpack_bits",
    "use_loops",
    "zero_rows",
]
