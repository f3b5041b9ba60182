"""Keys of rows in the order of their scores, by counting instead of comparing."""

import numpy as np

from gpuzip.loops._arrays import local
from gpuzip.loops._jit import apart, jit

BY_INSERTION = 48  # keys that `_least.in_order` puts in order sooner
_DIGITS = 1 << 8
_digits = local(4 * _DIGITS, np.uint32)


@jit("void(uint64[::1], intp)", inner=True)
def sort(keys, count):
    """Put keys of rows in ascending order in the order of their scores; keys: with room for as many again.

    Digits in which all keys agree are left out.
    """
    apart()
    many, source, target = _digits(), 0, len(keys) // 2
    for i in range(4 * _DIGITS):
        many[i] = 0
    for i in range(count):
        high = keys[i] >> np.uint64(32)
        for digit in range(4):
            many[digit * _DIGITS + ((high >> np.uint64(8 * digit)) & np.uint64(_DIGITS - 1))] += 1
    for digit in range(4):
        shift, total, most = np.uint64(32 + 8 * digit), 0, 0
        for i in range(digit * _DIGITS, (digit + 1) * _DIGITS):
            here = many[i]
            many[i], total, most = total, total + here, max(most, here)
        if most == count:
            continue
        for i in range(count):
            key = keys[source + i]
            place = digit * _DIGITS + ((key >> shift) & np.uint64(_DIGITS - 1))
            keys[target + many[place]] = key
            many[place] += 1
        source, target = target, source
    for i in range(count):
        keys[i] = keys[source + i]
