"""Training a QuantizedEmbedding, and compile, export and DistributedDataParallel."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gpuzip.codecs import BinaryQuantizer, Codec, LloydMaxQuantizer, ProductQuantizer, ScalarQuantizer
from gpuzip.nn import QuantizedEmbedding, QuantizedEmbeddingBag
from gpuzip.ops import unpack_bits

CODECS: dict[str, Codec] = {
    "lloydmax": LloydMaxQuantizer(4),
    "three bits": LloydMaxQuantizer(3),
    "blocks": LloydMaxQuantizer(3, block_len=3, per=12),
    "dims": LloydMaxQuantizer(2, per="dim"),
    "eight bits": ScalarQuantizer(8, per="tensor"),
    "padded pq": ProductQuantizer(7, 4, pad=True),
    "nine bits": ProductQuantizer(2, 9),
    "binary": BinaryQuantizer(),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(*shape: int, below: int = 600) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(1))


def plain(module: QuantizedEmbedding, codebook: Tensor, input: Tensor) -> Tensor:
    """Do the same look-up in plain torch: (R,) -> (R, D)."""
    C, K, S = codebook.shape
    share = -(-module.embedding_dim // (C * S))
    labels = unpack_bits(module.codes[input], C * share, K.bit_length() - 1).long()
    wide = codebook.repeat_interleave(share, 0)
    rows = torch.cat([wide[m][labels[:, m]] for m in range(C * share)], 1)[:, : module.embedding_dim]
    if module.padding_row is not None:
        rows = torch.where(
            torch.isin(input, torch.tensor(module.padding_idx))[:, None], module.padding_row, rows
        )
    return rows


def made(codec: Codec | None = None, trainable="codebook", **settings) -> QuantizedEmbedding:
    return QuantizedEmbedding.from_pretrained(
        normal(600, 24), freeze=False, codec=codec, trainable=trainable, **settings
    )


def grad(module: nn.Module) -> Tensor:
    """Return the gradient of a module's only parameter, and clear it."""
    (parameter,) = module.parameters()
    assert parameter.grad is not None and parameter.grad.dtype == parameter.dtype
    found, parameter.grad = parameter.grad, None
    return found


# --- gradients


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_matches_a_plain_look_up(name, dtype):
    module = made(CODECS[name], padding_idx=3).to(dtype)
    input, weights = torch.cat([ids(200), torch.full((5,), 3)]), normal(205, 24, seed=2).to(dtype)
    twin = module.codebook.detach().clone().requires_grad_()
    ours, theirs = module(input), plain(module, twin, input)
    assert torch.equal(ours, theirs)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (1e-12, 1e-12)
    torch.testing.assert_close(grad(module), twin.grad, rtol=rtol, atol=atol)


def test_passes_gradcheck():
    module = made(LloydMaxQuantizer(2, block_len=2, per=8), padding_idx=3, max_norm=4.0).double()
    input = torch.tensor([[3, 1], [8, 1]])

    def rows(codebook):
        return torch.func.functional_call(module, {"codebook": codebook}, (input,))

    assert torch.autograd.gradcheck(rows, (module.codebook,))


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch.func.jvp
def test_forward_derivatives_are_those_of_a_plain_look_up(name, dtype):
    module = made(CODECS[name], padding_idx=3, max_norm=4.0).to(dtype)
    codebook, input = module.codebook.detach(), torch.tensor([[3, 1], [8, 1]])
    tangent = normal(*codebook.shape, seed=1).to(dtype)

    def rows(codebook):
        return torch.func.functional_call(module, {"codebook": codebook}, (input,))

    want = torch.autograd.functional.jacobian(rows, codebook)
    moved = (want * tangent).sum((-3, -2, -1))
    torch.testing.assert_close(torch.func.jvp(rows, (codebook,), (tangent,))[1], moved, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.func.jacfwd(rows)(codebook), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.func.jacrev(rows)(codebook), want, rtol=1e-4, atol=1e-5)
    assert float(want.abs().max()) > 0.1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_has_no_derivative_raises():
    module = made(padding_idx=3)
    with pytest.raises(RuntimeError):
        torch.vmap(module)(torch.tensor([[3, 1], [8, 1]]))

    def loss(codebook):
        return torch.func.functional_call(module, {"codebook": codebook}, (ids(9),)).square().sum()

    with pytest.raises(RuntimeError):
        torch.func.hessian(loss)(module.codebook.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_half_precision_gradients_in_float32(dtype):
    module = made().to(dtype)
    module(ids(3000)).sum().backward()
    exact = made()
    exact(ids(3000)).sum().backward()
    torch.testing.assert_close(grad(module), grad(exact).to(dtype))


def test_gradients_repeat_bit_for_bit():
    found = []
    for _ in range(3):
        module = made(LloydMaxQuantizer(4))
        (module(ids(4000)) * normal(4000, 24, seed=2)).sum().backward()
        found.append(grad(module))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("trainable", ["codebook", "scale"])
def test_padding_row_has_no_gradient_and_does_not_change(trainable):
    module = made(trainable=trainable, padding_idx=3)
    before = module(torch.tensor([3])).detach()
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    module(torch.tensor([3, 3])).sum().backward()
    assert not grad(module).any()
    module(torch.tensor([3, 4])).sum().backward()
    optimizer.step()
    assert grad(module).any()
    assert torch.equal(module(torch.tensor([3])), before)


def test_scale_multiplies_rows_and_learns():
    module = made(trainable="scale")
    assert [p.shape for p in module.parameters()] == [(24,)]
    rows = module(ids(50)).detach()
    module.load_state_dict({"scale": torch.arange(24.0)}, strict=False)
    assert torch.equal(module(ids(50)), rows * torch.arange(24.0))
    module(ids(50)).sum().backward()
    torch.testing.assert_close(grad(module), rows.sum(0), rtol=1e-5, atol=1e-4)


def test_frozen_modules_have_no_gradient():
    assert not made(trainable=None).eval().requires_grad_(False)(ids(3)).requires_grad
    with torch.no_grad():
        assert not made()(ids(3)).requires_grad


def test_empty_batch_has_a_zero_gradient():
    module = made()
    module(ids(0)).sum().backward()
    assert torch.equal(grad(module), torch.zeros_like(module.codebook))


@pytest.mark.parametrize(
    ("codec", "trainable"),
    [
        (LloydMaxQuantizer(1), "codebook"),
        (ProductQuantizer(48, 4), "codebook"),
        (LloydMaxQuantizer(1), "scale"),
    ],
)
def test_fine_tuning_lowers_the_loss_of_a_classifier(real, codec, trainable):
    labels = (real @ real[:8].T).argmax(1)
    module = QuantizedEmbedding.from_pretrained(real, freeze=False, codec=codec, trainable=trainable)
    classes = real[:8].T * 8
    optimizer = torch.optim.Adam(module.parameters(), 0.02)

    def loss(part: Tensor) -> Tensor:
        return nn.functional.cross_entropy(module(part) @ classes, labels[part])

    with torch.no_grad():
        before = loss(torch.arange(8000))
    for step in range(40):
        optimizer.zero_grad()
        loss(ids(512, below=8000) if step % 2 else torch.arange(step, 8000, 17)).backward()
        optimizer.step()
    with torch.no_grad():
        assert loss(torch.arange(8000)) < 0.9 * before


# --- compile, export, DistributedDataParallel


# torch's compiler instantiates an autograd function where it traces one, and torch warns of that
TRACED = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.full
@pytest.mark.parametrize("trainable", [None, "codebook", "scale"])
@pytest.mark.parametrize("dynamic", [False, True])
@TRACED
def test_compiles_without_graph_breaks(fresh_compiler, trainable, dynamic):
    module = made(trainable=trainable, padding_idx=3, max_norm=4.0).requires_grad_(trainable is not None)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for shape in ((4, 6), (9, 6), (2, 5)):
        ours, theirs = compiled(ids(*shape)), module(ids(*shape))
        torch.testing.assert_close(ours, theirs)
        if trainable is not None:
            (parameter,) = module.parameters()
            grads = [torch.autograd.grad(y.square().sum(), parameter)[0] for y in (ours, theirs)]
            torch.testing.assert_close(*grads)


def test_compiles_once_for_changing_shapes(fresh_compiler):
    model = nn.Sequential(made(CODECS["padded pq"], trainable=None), nn.Linear(24, 3)).requires_grad_(False)
    from torch._dynamo.testing import CompileCounterWithBackend  # which takes seconds to import

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for n in (3, 4, 17, 300):
        torch.testing.assert_close(compiled(ids(n, 2)), model(ids(n, 2)))
    assert counter.frame_count == 1


@TRACED
def test_compiled_model_gives_zeros_for_ids_out_of_range(fresh_compiler):
    module = made()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    rows = compiled(torch.tensor([-1, 5, 600]))
    assert torch.equal(rows, torch.stack([torch.zeros(24), module.weight[5], torch.zeros(24)]))
    rows.sum().backward()
    got = grad(module)
    module(torch.tensor([5])).sum().backward()
    assert torch.equal(got, grad(module))


@pytest.mark.parametrize("module", [QuantizedEmbedding(60, 24, padding_idx=3), QuantizedEmbeddingBag(60, 24)])
def test_exports_with_a_dynamic_batch_size(module):
    size = torch.export.Dim("size", min=2, max=512)
    exported = torch.export.export(module, (ids(4, 5, below=60),), dynamic_shapes=({0: size},))
    for n in (2, 30):
        assert torch.equal(exported.module()(ids(n, 5, below=60)), module(ids(n, 5, below=60)))


def test_distributed_data_parallel_trains_the_codebook(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        module, alone = made(padding_idx=3), made(padding_idx=3)
        parallel = DistributedDataParallel(module)
        parallel(ids(40)).square().sum().backward()
        alone(ids(40)).square().sum().backward()
        assert torch.equal(grad(module), grad(alone))
    finally:
        torch.distributed.destroy_process_group()
