"""decode and decode_rotated beyond their samples: ids, rotations, tiles."""

import importlib.util

import pytest
import torch

from gpuzip.ops import decode, decode_rotated, pack_bits

needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="the interpreter stands in for a GPU",
)
WRONG = [-1, -(2**63), 2**31, 2**32 + 3, 2**63 - 1]


def inputs(N: int, M: int, nbits: int, S: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(N + S)
    codes = torch.randint(0, 1 << nbits, (N, M), generator=g)
    packed = pack_bits(codes.to(torch.uint8 if nbits <= 8 else torch.int32), nbits)
    return packed, torch.randn(M, 1 << nbits, S, generator=g)


def orthogonal(D: int) -> torch.Tensor:
    square = torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(D))
    q: torch.Tensor = torch.linalg.qr(square)[0]
    return q


@pytest.mark.parametrize(("M", "nbits", "S"), [(48, 8, 8), (64, 8, 6), (7, 4, 5), (3, 12, 16)])
def test_rows_by_id_are_those_rows(M, nbits, S):
    packed, centroids = inputs(700, M, nbits, S)
    ids = torch.randint(0, 700, (900,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(decode(packed, centroids, ids), decode(packed, centroids)[ids])
    assert torch.equal(decode(packed, centroids, ids[:5]), decode(packed, centroids)[ids[:5]])


@pytest.mark.parametrize("N", [0, 1, 300])
def test_an_id_that_is_no_row_decodes_to_zeros_and_reads_nothing(N):
    packed, centroids = inputs(N, 6, 4, 4)
    wrong = torch.tensor([*WRONG, N])
    assert not decode(packed, centroids, wrong).any()
    assert not decode(packed, centroids, wrong.repeat(60)).any()
    assert not decode_rotated(packed, centroids, torch.eye(24), wrong).any()


@needs_interpreter
@pytest.mark.parametrize("N", [0, 3])
def test_the_kernel_masks_ids_that_are_no_rows(N):
    """The interpreter reads real memory, so a read at these ids would end the process."""
    from gpuzip.kernels import decode as kernels

    packed, centroids = inputs(N, 6, 4, 4)
    wrong = torch.tensor([*WRONG, N])
    assert not kernels.decode(packed, centroids, wrong).any()
    assert not kernels.decode_rotated(packed, centroids, torch.eye(24), wrong).any()


@needs_interpreter
def test_every_tile_decodes_the_same_bytes():
    from gpuzip.kernels import decode as kernels

    packed, centroids = inputs(9, 16, 8, 6)
    want = decode(packed, centroids)
    for tile in ((1, 16, 2), (4, 16, 2), (128, 64, 1), (32, 8, 2)):
        assert torch.equal(kernels.decode(packed, centroids, tile=tile), want)


@pytest.mark.parametrize("K", [16, 256, 65536])
@pytest.mark.parametrize("S", [1, 3, 4, 6, 8, 96])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_the_tile_stores_whole_lines_and_keeps_its_centroids_in_cache(K, S, itemsize):
    pytest.importorskip("triton")
    from gpuzip.kernels.decode import _tile

    D = 96 * S
    BN, BC, W = _tile(D, K, S, itemsize)
    assert S % W == 0 and W * itemsize <= 16
    width = BC * W * itemsize
    assert width >= 128 or BC * W >= D
    assert width * K <= 1 << 17 or width == 128
    assert BN >= 1 and BN * BC <= 2048


@pytest.mark.full
@pytest.mark.parametrize(("M", "nbits", "S"), [(48, 8, 8), (20, 4, 3)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e35])
def test_rotated_rows_are_float32_products_at_any_scale(M, nbits, S, scale):
    packed, centroids = inputs(70, M, nbits, S)
    centroids *= scale
    rotation = orthogonal(M * S)
    want = (decode(packed, centroids).double() @ rotation).float()
    paths = [decode_rotated]
    if importlib.util.find_spec("triton") and not torch.cuda.is_available():
        from gpuzip.kernels import decode as kernels

        paths.append(kernels.decode_rotated)
    for path in paths:
        got = path(packed, centroids, rotation.float())
        torch.testing.assert_close(got / scale, want / scale)


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_simpler_form_of_the_rotation(dtype):
    from gpuzip.kernels import decode as kernels

    packed, centroids = inputs(70, 5, 4, 6)
    rotation, centroids, ids = orthogonal(30).float()[:, :17], centroids.to(dtype), torch.tensor([3, -1, 69])
    for chosen in (None, ids):
        out = torch.full((70 if chosen is None else 3, 17), float("nan"))
        kernels._rotate_float32(packed, centroids, rotation, chosen, out)
        torch.testing.assert_close(out, decode_rotated(packed, centroids, rotation, chosen))


@pytest.mark.full
@needs_interpreter
def test_a_rotated_row_is_the_same_bits_alone_and_in_any_tile():
    from gpuzip.kernels import decode as kernels

    packed, centroids = inputs(200, 12, 8, 8)
    rotation = orthogonal(96).float()
    want = kernels.decode_rotated(packed, centroids, rotation)
    assert torch.equal(kernels.decode_rotated(packed, centroids, rotation), want)
    for tile in ((32, 64, 32, 4, 2), (64, 16, 32, 4, 1)):
        other = kernels.decode_rotated(packed, centroids, rotation, tile=tile)
        torch.testing.assert_close(other, want)
