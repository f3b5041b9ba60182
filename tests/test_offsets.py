"""Rows three billion elements apart: every kernel that reads rows where they lie finds them.

The memory between them is reserved by nobody and never touched.
"""

import mmap
import sys

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from gpuzip.kernels import assign, bucketize, decode, encode, kmeans_step, rescore, scalar_encode
from gpuzip.ops import OPS, pack_bits

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter stands in for a GPU"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory that is only reserved"),
]

STRIDE = 3 * 10**9  # elements: beyond 32 bits, signed or not, when rows are multiplied by it


def far_apart(x: Tensor) -> Tensor:
    """The same rows, STRIDE elements from one another."""
    size = ((len(x) - 1) * STRIDE + x.shape[1]) * x.element_size()
    memory = mmap.mmap(
        -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    )
    return torch.frombuffer(memory, dtype=x.dtype).as_strided(x.shape, (STRIDE, 1)).copy_(x)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, CENTROIDS = draw(3, 24), draw(3, 16, 8, seed=1)
PACKED = pack_bits(
    torch.randint(0, 16, (3, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8), 4
)
IDS = torch.tensor([[2, 0, 1], [1, 2, 2]])


@pytest.mark.full
@pytest.mark.parametrize(
    ("op", "launch", "rows", "rest"),
    [
        ("assign", assign.assign, X, (CENTROIDS, False)),
        ("assign", assign.assign, X, (CENTROIDS, True)),
        ("encode", encode.encode, X, (CENTROIDS, False)),
        ("kmeans_step", kmeans_step.kmeans_step, X, (CENTROIDS,)),
        ("bucketize", bucketize.bucketize, X, (draw(1, 3, seed=3).sort().values,)),
        ("scalar_encode", scalar_encode.scalar_encode, X, (draw(24, seed=3), torch.full((24,), 0.1), 63)),
        ("decode", decode.decode, PACKED, (CENTROIDS, None)),
        ("decode_rotated", decode.decode_rotated, PACKED, (CENTROIDS, draw(24, 24, seed=4), None)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_rows_far_apart_are_found(op, launch, rows, rest):
    got, want = launch(far_apart(rows), *rest), OPS[op].reference(rows, *rest)
    for a, b in zip(
        got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.full
def test_candidates_far_apart_are_found():
    q = draw(2, 24, seed=5)
    got = rescore.rescore(q, far_apart(X), IDS, "ip")
    torch.testing.assert_close(got, OPS["rescore"].reference(q, X, IDS, "ip"))
    got = rescore.rescore_codes(q, far_apart(PACKED), CENTROIDS, IDS, "l2")
    torch.testing.assert_close(got, OPS["rescore_codes"].reference(q, PACKED, CENTROIDS, IDS, "l2"))
