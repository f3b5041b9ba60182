"""Tables of few queries, exact and rounded to bytes, with what is known of the errors."""

import numpy as np

from gpuzip.loops._arrays import doubles, floats, words
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._nibble_memory import ABOUT, ASKED, BINS, ENDS, FACTS, ROUNDED, TABLES, WIDEST, place
from gpuzip.loops._nibbles import table_of_distances, table_of_products
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops._vectors256 import address_of

_SMALL, _LARGE = 2.0**-100, 2.0**120  # spans of tables whose steps, and sums, fit in float32
_SMALL_SCALED, _LARGE_SCALED = 2.0**-60, 2.0**60  # the same of products with factors
_COSINE = 1.1  # no cosine is greater

round_entries, _TABLE = WIDEST.round_entries, WIDEST.TABLE


@jit("boolean(intp, intp, float32[:, :, ::1], float64[::1], boolean, intp, intp)", inner=True)
def make_tables(queries, Q, centroids, facts, is_scaled, memory, plan):
    """Write tables, their roundings and the facts of Q queries at an address; return whether all are sound.

    facts: of the search, whether scores are distances and queries are normalized, what their squares stay
    below, and the least and the greatest factor of rows.
    """
    apart()
    S, M, _ = centroids.shape
    asked, tables, ends = place(memory, plan, ASKED), place(memory, plan, TABLES), place(memory, plan, ENDS)
    if not unit_rows(queries, Q, facts[1] != 0, facts[2], floats(asked, Q * S * M)):
        return False
    start, even, top = address_of(centroids), M // 2 + (M // 2 & 1), min(127, 65535 // M)
    for q in range(Q):
        for m in range(M):
            table, ends_of_table = tables + 64 * (q * M + m), ends + 8 * m
            query, column = asked + 4 * S * (q * M + m), start + 64 * m
            if facts[0] != 0:
                table_of_distances(table, ends_of_table, query, column, 64 * M, S)
            else:
                table_of_products(table, ends_of_table, query, column, 64 * M, S)
        rounded = place(memory, plan, ROUNDED) + q * _TABLE * even
        last_two = words(rounded + _TABLE * (even - 2), _TABLE // 2)
        for i in range(len(last_two)):  # the last byte may be none
            last_two[i] = 0
        about = doubles(place(memory, plan, ABOUT) + 8 * FACTS * q, FACTS)
        if not _round(M, top, tables + 64 * q * M, rounded, floats(ends, 2 * M), facts, is_scaled, about):
            return False
    return True


@jit("boolean(intp, intp, intp, intp, float32[::1], float64[::1], boolean, float64[::1])", inner=True)
def _round(M, top, table, rounded, ends, facts, is_scaled, about):
    """Round the tables of a query; the exact sum is within room of low + step * (sum of bytes)."""
    low, high, size, reach = 0.0, 0.0, 0.0, np.float32(0)
    for m in range(M):
        least, most = ends[2 * m], ends[2 * m + 1]
        low, high = low + least, high + most
        size += max(abs(least), abs(most))
        reach = max(reach, most - least)
    least, most = (_SMALL_SCALED, _LARGE_SCALED) if is_scaled else (_SMALL, _LARGE)
    if not (reach > least and size < most):
        return False
    # Half a step per entry with what float32 hides of it, M roundings in the float32 sum of M entries, and
    # the rounding of the bound itself and of its product with a factor.
    hidden = 2.0**-22 * M * size + 2.0**-20 * (abs(low) + M * np.float64(reach))
    step = reach * (1 + 2.0**-20) / top
    for m in range(M):
        round_entries(rounded, m, table + 64 * m, ends[2 * m], np.float32(1 / step))
    first, last = min(low * facts[3], low * facts[4]), max(high * facts[3], high * facts[4])
    if is_scaled:
        first, last = max(first, -_COSINE), min(last, _COSINE)
    about[0], about[1], about[2] = low, step, step * (0.501 * M + 1) + hidden
    about[3], about[4] = first, BINS / (last - first)
    return last > first
