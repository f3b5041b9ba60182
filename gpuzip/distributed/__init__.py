"""Rows past one process: one callable for data engines, and calls for the ranks of torch.distributed."""

from gpuzip.distributed.drawing import sample
from gpuzip.distributed.encoder import Encoder
from gpuzip.distributed.encoding import encode, fit
from gpuzip.distributed.ray_data import compress_dataset
from gpuzip.distributed.searching import search
from gpuzip.distributed.traffic import Traffic, traffic

__all__ = ["Encoder", "Traffic", "compress_dataset", "encode", "fit", "sample", "search", "traffic"]
