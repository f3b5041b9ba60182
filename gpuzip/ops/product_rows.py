"""Products of few rows and a matrix in one compiled call, to the bits of a BLAS whose sums are known."""

from __future__ import annotations

from torch import Tensor, from_numpy

from gpuzip._core.few import is_plain
from gpuzip.ops._dispatch import loops_are_used, loops_of, unless_compiling


def few_products(x: Tensor, matrix: Tensor, run: int) -> Tensor | None:
    """Compute x (N, D) @ matrix (D, E) float32 -> (N, E), or return None where the loop does not run.

    A sum starts from 0 for each run of `run` dimensions, adds products in order, each with one rounding, and
    is then added to those before. A BLAS that does the same has the same bits. Only where
    `few_products_run`.
    """
    if not loops_are_used() or not is_plain(x) or not is_plain(matrix) or not matrix.is_contiguous():
        return None
    loop = loops_of("product_rows").product
    found = unless_compiling("product_rows", loop, x.contiguous().numpy(), matrix.numpy(), run)
    return None if found is None else from_numpy(found)


def few_products_run() -> bool:
    """Return whether `few_products` has a loop on this CPU, and whether it is compiled if nobody waits."""
    if not loops_are_used():
        return False
    loops = loops_of("product_rows")
    return loops.is_here() and unless_compiling("product_rows", loops.compiled_now) is not None
