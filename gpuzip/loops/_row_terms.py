"""What a scan reads of rows beside their codes: which are allowed, and the terms of their scores."""

from gpuzip.loops._jit import apart, jit


@jit("boolean(boolean[::1], intp, intp)", inner=True)
def any_allowed(mask, start, stop):
    """Return whether the mask allows any row from start to stop."""
    found = False
    for r in range(start, stop):
        found |= mask[r]
    return found


@jit("void(float32[::1], intp, intp, float32[::1], float32[::1], intp, intp)", inner=True)
def copy_terms(floats, first, step, scale, extra, r, n):
    """Copy factors of n rows from row r to floats[first:], and each extra column `step` floats further."""
    apart()
    for i in range(n):
        floats[first + i] = scale[r + i]
        for e in range(len(extra) // len(scale)):
            floats[first + (1 + e) * step + i] = extra[e * len(scale) + r + i]
