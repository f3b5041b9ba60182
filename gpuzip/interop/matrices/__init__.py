"""Matrices in files of other programs: npy, npz, safetensors, parquet, arrow, hdf5, fvecs, bvecs, ivecs."""

from gpuzip.interop.matrices.formats import FORMATS, Format, format_of, read_matrix, write_matrix

__all__ = ["FORMATS", "Format", "format_of", "read_matrix", "write_matrix"]
