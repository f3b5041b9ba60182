"""Look-ups exported by torch.export and to ONNX give the rows that the module gives."""

import io
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gpuzip
from gpuzip.nn import QuantizedEmbedding, QuantizedEmbeddingBag
from gpuzip.nn._lookup import _in_torch
from gpuzip.nn._shapes import sharing

IDS = torch.tensor([[1, 2, 3], [99, 0, 1]])
AXES = ({0: torch.export.Dim("bags"), 1: torch.export.Dim("ids")},)

SETTINGS: list[dict[str, Any]] = [
    *({"bits": bits} for bits in (1, 2, 3, 4, 6)),
    {"codec": gpuzip.ProductQuantizer(5, 5, pad=True)},
    {"codec": gpuzip.LloydMaxQuantizer(2, per="dim")},
    {"codec": gpuzip.BinaryQuantizer()},
    {"trainable": "scale"},
    {"trainable": "codebook"},
]


def made(**settings: Any) -> QuantizedEmbedding:
    x = torch.randn(100, 24, generator=torch.Generator().manual_seed(0))
    return QuantizedEmbedding.from_pretrained(x, padding_idx=1, **settings).eval()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_operators_of_onnx_decode_to_the_same_rows(settings):
    table = made(**settings)
    rows = _in_torch(table.codes, table.codebook, sharing(table.codebook, 24))[:, :24]
    want = table.to_dense().weight / (1 if table.scale is None else table.scale)
    assert torch.equal(rows[2:], want[2:])


@pytest.mark.parametrize("nbits", range(1, 17))
def test_operators_of_onnx_take_codes_that_cross_bytes(nbits):
    generator = torch.Generator().manual_seed(nbits)
    codes = torch.randint(0, 1 << nbits, (40, 7), generator=generator)
    packed = gpuzip.ops.pack_bits(codes.to(torch.uint8 if nbits <= 8 else torch.int32), nbits)
    codebook = torch.randn(7, 1 << nbits, 2, generator=generator)
    want = torch.cat([codebook[m][codes[:, m]] for m in range(7)], 1)
    assert torch.equal(_in_torch(packed, codebook, 1), want)


def run(program: bytes, ids: Tensor) -> Any:
    session = pytest.importorskip("onnxruntime").InferenceSession(program)
    return session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0]


def exported(module: nn.Module, **settings: Any) -> bytes:
    pytest.importorskip("onnxscript")
    file = io.BytesIO()
    torch.onnx.export(module, (IDS,), cast(Any, file), verbose=False, **settings)
    return file.getvalue()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", SETTINGS[2:4] + SETTINGS[5:6] + SETTINGS[-2:], ids=str)
def test_an_onnx_program_looks_up_the_same_rows(settings):
    table = made(**settings)
    program = exported(table, dynamo=True, dynamic_shapes=AXES)
    ids = IDS.repeat(2, 3)
    assert np.array_equal(run(program, ids), table(ids).detach().numpy())
    assert len(program) < 40_000


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_the_former_exporter_and_a_bag_look_up_the_same_rows():
    table = made()
    assert np.array_equal(run(exported(table, dynamo=False), IDS), table(IDS).numpy())
    bag = QuantizedEmbeddingBag.from_pretrained(table.weight).eval()
    np.testing.assert_allclose(run(exported(bag, dynamo=True), IDS), bag(IDS).numpy(), atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("settings", SETTINGS[3:4] + SETTINGS[-2:], ids=str)
def test_an_exported_program_is_saved_and_looks_up_the_same_rows(settings):
    table = made(**settings)
    file = io.BytesIO()
    with torch.no_grad():
        torch.export.save(torch.export.export(table, (IDS,), dynamic_shapes=AXES), file)
        file.seek(0)
        ids = IDS.repeat(2, 3)
        assert torch.equal(torch.export.load(file).module()(ids), table(ids))
