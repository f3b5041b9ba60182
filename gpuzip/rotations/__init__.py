"""Orthonormal maps of rows that codecs code better than the rows themselves."""

from gpuzip.rotations.rotation import KINDS, Rotation

__all__ = ["KINDS", "Rotation"]
