"""Small files that stand for much: memory goes with the file and with the rows that are asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import Rotation
from tests.attacks.forge import Forgery, peak_growth

D = 300_000


def wide(codec: gpuzip.Quantizer, n: int = 4, d: int = D) -> gpuzip.Codes:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    return codec.fit(x).encode(x[:1])


WIDE: dict[str, Callable[[], gpuzip.Codes]] = {
    "lloydmax": lambda: wide(gpuzip.LloydMaxQuantizer(1)),
    "scalar": lambda: wide(gpuzip.ScalarQuantizer(1, per="tensor", range=(-1, 1))),
    "binary": lambda: wide(gpuzip.BinaryQuantizer()),
}


@pytest.mark.parametrize("name", WIDE)
def test_one_row_of_many_columns_takes_little_memory(path: Path, name: str):
    codes = WIDE[name]()
    codes.save(path)
    row = codes.decode()

    def use() -> None:
        opened = gpuzip.open(path)
        assert torch.equal(opened.rows([0]), row)
        assert float(opened.norms) == pytest.approx(float(row.norm()), rel=1e-4)
        for metric in ("l2", "ip", "cosine"):
            assert opened.search(row, 1, metric)[1].tolist() == [[0]]

    use()
    assert peak_growth(use) < 64 << 20


def test_a_table_of_many_columns_is_made_in_little_more_than_its_own_memory():
    """Each byte stands for up to 8 columns and a share of those without bits, in float32."""
    x = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0))
    codes = gpuzip.MixedLloydMaxQuantizer(1).fit(x).encode(x)
    row, norms = codes.decode(), []
    table = codes.codec.centroids.nbytes  # type: ignore[attr-defined]
    assert table > 48 << 20
    growth = peak_growth(lambda: norms.append(codes.norms))
    assert growth < table + (48 << 20)
    torch.testing.assert_close(norms[0], row.norm(dim=1), rtol=1e-4, atol=0)


def test_scores_of_wide_rows_are_those_of_tables(monkeypatch: pytest.MonkeyPatch):
    """Decoded rows take the place of tables; a search says the same."""
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    for codec in (gpuzip.LloydMaxQuantizer(2), gpuzip.ScalarQuantizer(4), gpuzip.BinaryQuantizer()):
        results = []
        for limit in (1 << 15, 0):
            monkeypatch.setattr("gpuzip.codecs.base._WIDE", limit)
            codes = codec.fit(x).encode(x)
            results.append(
                [codes.norms, codes.decode(), *codes.search(x[:9], 5), *codes.search(x[:9], 5, "l2")]
            )
        for table, decoded in zip(*results, strict=True):
            torch.testing.assert_close(table, decoded, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("d", [10**7, 10**9])
def test_a_truncation_is_a_slice(path: Path, d: int):
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    gpuzip.HalfQuantizer(rotation=Rotation("truncate", dims=8)).fit(x).encode(x).save(path)
    forgery = Forgery.of(path.read_bytes())
    forgery.header["d"] = forgery.header["config"]["rotation"]["d"] = d
    path.write_bytes(forgery.bytes())
    assert len(path.read_bytes()) < 3000
    assert peak_growth(lambda: gpuzip.open(path)) < 16 << 20
    if d == 10**7:
        assert peak_growth(lambda: gpuzip.open(path).rows([3])) < 150 << 20  # of 40 MB


@pytest.mark.parametrize("dims", [None, 5000])
def test_a_hadamard_rotation_of_many_columns_is_a_transform(path: Path, dims: int | None):
    d = 20_000
    x = torch.randn(6, d, generator=torch.Generator().manual_seed(0))

    def use() -> None:
        codec = gpuzip.HalfQuantizer(rotation=Rotation("hadamard", dims=dims)).fit(x)
        codec.encode(x).save(path)
        y = gpuzip.load(path)
        assert gpuzip.open(path).codec.width == (dims or d)
        if dims is None:
            torch.testing.assert_close(y, x, rtol=0, atol=5e-3)
        alone = codec.encode(x[3:4]).decode()
        assert torch.equal(alone, y[3:4])  # whatever rows are beside it
        assert gpuzip.open(path).search(x[3], 1)[1].tolist() == [3]

    use()
    assert peak_growth(use) < 64 << 20


@pytest.mark.parametrize("d", [1, 2, 3, 100, 384])
def test_a_transform_is_the_product_of_its_matrix(monkeypatch: pytest.MonkeyPatch, d: int):
    x = torch.randn(9, d, generator=torch.Generator().manual_seed(0))
    for dims in {d, -(-d // 2)}:
        rotation = Rotation("hadamard", dims=dims).fit(x)
        by_matrix = rotation.apply(x), rotation.reverse_transform(x[:, :dims])
        monkeypatch.setattr("gpuzip.rotations.fitted._LARGEST_MATRIX", 0)
        by_sums = rotation.apply(x), rotation.reverse_transform(x[:, :dims])
        monkeypatch.undo()
        for product, sums in zip(by_matrix, by_sums, strict=True):
            torch.testing.assert_close(product, sums, rtol=1e-5, atol=1e-5)


def test_a_file_that_decodes_to_more_than_memory_is_refused(path: Path):
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    gpuzip.HalfQuantizer(rotation=Rotation("truncate", dims=8)).fit(x).encode(x).save(path)
    forgery = Forgery.of(path.read_bytes())
    forgery.header["d"] = forgery.header["config"]["rotation"]["d"] = 10**12
    path.write_bytes(forgery.bytes())
    with pytest.raises(gpuzip.GpuzipError, match=r"they take 200,000,000,000,000.*gpuzip\.open"):
        gpuzip.load(path)


def test_load_takes_a_limit_of_bytes(original: bytes, path: Path):
    path.write_bytes(original)
    rows = gpuzip.load(path)
    assert torch.equal(gpuzip.load(path, max_bytes=rows.nbytes), rows)
    assert np.array_equal(gpuzip.load(path, max_bytes="1GB"), rows)
    with pytest.raises(gpuzip.GpuzipError, match="at most 95 bytes; they take 96"):
        gpuzip.load(path, max_bytes=rows.nbytes - 1)
    with pytest.raises(gpuzip.GpuzipError, match="max_bytes must be a number of bytes"):
        gpuzip.load(path, max_bytes="much")
