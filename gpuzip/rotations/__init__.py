"""Orthonormal maps of rows that codecs code better than the rows themselves."""

from gpuzip.rotations.rotation import KINDS, OF_SUBSPACES, Rotation

__all__ = ["KINDS", "OF_SUBSPACES", "Rotation"]
