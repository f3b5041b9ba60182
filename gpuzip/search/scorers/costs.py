"""Which of equivalent searches takes the least time on a CPU, by counts of work and measured constants.

The constants are nanoseconds on an AMD Zen 3 with AVX2. Only their ratios matter, and those of other
processors differ less than the work does: `tests/test_costs.py` holds what was measured. Registers of 512
bits were measured on a Zen 4, and scaled.
"""

from __future__ import annotations

from gpuzip.ops.one_pass import has_wide_tables

FEW_QUERIES, _SOME_QUERIES, _MANY_QUERIES = 4, 16, 32
_FEW_ROWS = 4096

# Per query: its table, and sums of the rows that may be best, which are more and longer with more nibbles.
_SQUARE_OF_NIBBLES, _BYTE_OF_TABLES = 2.0, 700.0
_BYTE_OF_ROW = {16: 0.12, 256: 0.3}
_WIDE_BYTE_OF_TABLES, _WIDE_BYTE_OF_ROW = 520.0, 0.11  # of 256 entries in registers of 512 bits
_WIDE_MOST_BYTES = 128  # whose tables of bytes stay in L1
_QUERY = 15_000.0  # of a product: order and scores of its candidates
_VALUE, _VALUE_OF_FOUR, _VALUE_OF_MANY = 0.15, 0.09, 0.06  # of a row, by one query of as many that share it


def of_tables(Q: int, N: int, B: int, K: int) -> float:
    """Estimate the nanoseconds of Q queries over N rows of B bytes in columns, by tables of K entries."""
    return Q * B * (_byte_of_tables(B, K) + _byte_of_row(K) * N)


def of_kept_product(Q: int, N: int, D: int) -> float:
    """Estimate the nanoseconds of Q queries over N kept float rows of D columns, by products."""
    return Q * (_QUERY + N * D * (_VALUE if Q < 4 else _VALUE_OF_FOUR))


def product_pays(Q: int, N: int, B: int, D: int, K: int) -> bool:
    """Whether products of N decoded rows of D columns find the best sooner on a CPU than tables for B bytes.

    K: entries of tables. Measured with AVX2: a byte costs a query as much time as two columns by tables of
    nibbles, as eight by those of bytes; making the tables costs as much as some thousand rows. By registers
    of 512 bits tables of bytes cost as much as those of nibbles while they fit in L1, but making them as much
    as more rows.
    """
    if K not in (2, 4, 16, 256):
        return True
    if Q <= FEW_QUERIES:
        return False
    few = N < _FEW_ROWS
    if K == 256 and not has_wide_tables():
        return few or Q > _MANY_QUERIES or 8 * B > D
    if 2 * B > D:
        return True
    shared = few and Q > _SOME_QUERIES
    if K == 256:
        tables_cost_more = B * _byte_of_tables(B, K) > N * D * _VALUE_OF_MANY
        return B > _WIDE_MOST_BYTES or (shared and tables_cost_more)
    return shared and 4 * B > D


def _byte_of_tables(B: int, K: int) -> float:
    if K != 256:
        return _SQUARE_OF_NIBBLES * B
    return _WIDE_BYTE_OF_TABLES if has_wide_tables() else _BYTE_OF_TABLES


def _byte_of_row(K: int) -> float:
    return _WIDE_BYTE_OF_ROW if K == 256 and has_wide_tables() else _BYTE_OF_ROW[K]
