"""Which of equivalent searches takes the least time on a CPU, by counts of work and measured constants.

The constants are nanoseconds on an AMD Zen 3 with AVX2. Only their ratios matter, and those of other
processors differ less than the work does: `tests/test_costs.py` holds what was measured.
"""

from __future__ import annotations

FEW_QUERIES, _SOME_QUERIES, _MANY_QUERIES = 4, 16, 32
_FEW_ROWS = 4096

_BYTE_OF_TABLES = {16: 400.0, 256: 700.0}  # per query: its table, and sums of the rows that may be best
_BYTE_OF_ROW = {16: 0.12, 256: 0.3}
_QUERY = 15_000.0  # of a product: order and scores of its candidates
_VALUE, _VALUE_OF_FOUR = 0.15, 0.09  # of a row, by one query and by one of four that share it


def of_tables(Q: int, N: int, B: int, K: int) -> float:
    """Estimate the nanoseconds of Q queries over N rows of B bytes in columns, by tables of K entries."""
    return Q * B * (_BYTE_OF_TABLES[K] + _BYTE_OF_ROW[K] * N)


def of_kept_product(Q: int, N: int, D: int) -> float:
    """Estimate the nanoseconds of Q queries over N kept float rows of D columns, by products."""
    return Q * (_QUERY + N * D * (_VALUE if Q < 4 else _VALUE_OF_FOUR))


def product_pays(Q: int, N: int, B: int, D: int, K: int) -> bool:
    """Whether products of N decoded rows of D columns find the best sooner on a CPU than tables for B bytes.

    K: entries of tables. Measured with AVX2: a byte costs a query as much time as two columns by tables of
    nibbles, as eight by those of bytes; making the tables costs as much as some thousand rows.
    """
    if K not in (2, 4, 16, 256):
        return True
    if Q <= FEW_QUERIES:
        return False
    few = N < _FEW_ROWS
    if K == 256:
        return few or Q > _MANY_QUERIES or 8 * B > D
    return 2 * B > D or (few and Q > _SOME_QUERIES and 4 * B > D)
