"""Orthonormal maps of rows, after which codecs lose less."""

from gpuzip.rotations.rotation import KINDS, OF_SUBSPACES, Rotation

__all__ = ["KINDS", "OF_SUBSPACES", "Rotation"]
