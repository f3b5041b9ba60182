"""How good codes of so many bits can be: gpuzip's own bound, beside which reports show codecs too."""

from gpuzip.choose.bound import cosine_bound, distortion

__all__ = ["cosine_bound", "distortion"]
