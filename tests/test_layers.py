"""The direction of imports, and a few things that the library never does."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module imports from lower layers, and from its own package. Arrows only point down.
LAYERS = [
    ["gpuzip"],
    ["gpuzip.interop", "gpuzip.nn", "gpuzip.plots", "gpuzip.sizes"],
    ["gpuzip.words"],
    ["gpuzip.api", "gpuzip.similar"],
    ["gpuzip.outcome"],
    ["gpuzip.budget"],
    ["gpuzip.codecs", "gpuzip.mixed"],
    ["gpuzip.codes", "gpuzip.drift", "gpuzip.spec"],
    ["gpuzip.searching"],
    ["gpuzip.rotations"],
    ["gpuzip.additive", "gpuzip.kmeans", "gpuzip.levels", "gpuzip.rescoring", "gpuzip.storage"],
    ["gpuzip.search"],
    ["gpuzip.quality", "gpuzip.rows"],
    ["gpuzip.ops"],
    ["gpuzip.loops"],
    ["gpuzip.byte_products", "gpuzip.matmul"],
    ["gpuzip.probe"],
    ["gpuzip.bytewise", "gpuzip.capture", "gpuzip.parallel", "gpuzip.planes"],
    ["gpuzip._version", "gpuzip.errors"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

LIBRARY = sorted(p for p in (ROOT / "gpuzip").rglob("*.py") if "kernels" not in p.parts)
KERNELS = sorted((ROOT / "kernels").glob("*.py"))


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(name: str) -> str:
    """gpuzip.ops.bits -> gpuzip.ops; a layer is a module or a package of the first level."""
    return ".".join(name.split(".")[:2])


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that is there at run time: what is under `if TYPE_CHECKING` is not."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from nodes(other)
        else:
            yield child
            yield from nodes(child)


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of imported modules; a relative import keeps its dots."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def imports_outside_functions(statement: ast.stmt) -> Iterator[str]:
    """What one statement of a module imports when the module is imported."""
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield from imports(ast.Module([statement], []))


def calls(tree: ast.AST) -> Iterator[str]:
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def upward(path: Path, names: list[str]) -> list[str]:
    """Of the imported names, those that are not below the module at `path`."""
    own = layer(module(path))
    inner = [name for name in names if name.split(".")[0] == "gpuzip" and layer(name) != own]
    return [name for name in inner if RANK[layer(name)] <= RANK[own]]


def test_every_module_has_a_layer():
    assert {layer(module(path)) for path in LIBRARY} == set(RANK)


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_imports_point_down(path: Path):
    assert upward(path, list(imports(read(path)))) == []


def test_an_arrow_up_or_across_is_seen():
    tree = ast.parse(
        "if TYPE_CHECKING:\n    from gpuzip.api import save\nelse:\n    import gpuzip.api\n"
        "def f():\n    from gpuzip.codes import Codes\n    import gpuzip.storage, gpuzip.ops.bits\n"
    )
    wrong = upward(ROOT / "gpuzip" / "search.py", list(imports(tree)))
    assert wrong == ["gpuzip.api", "gpuzip.codes", "gpuzip.storage"]


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_imports_are_absolute(path: Path):
    assert [name for name in imports(read(path)) if name.startswith(".")] == []


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_kernels_and_loops_are_reached_by_name_through_their_operators_alone(path: Path):
    tree = read(path)
    assert not [name for name in imports(tree) if "kernels" in name.split(".")]
    assert layer(module(path)) == "gpuzip.loops" or "gpuzip.loops" not in map(layer, imports(tree))
    by_name = {"importlib.import_module", "import_module", "__import__"} & set(calls(tree))
    may = module(path) in ("gpuzip.ops._define", "gpuzip.ops._lanes")
    assert by_name == ({"importlib.import_module"} if may else set())


@pytest.mark.parametrize("path", KERNELS, ids=label)
def test_a_kernel_imports_torch_triton_and_its_siblings(path: Path):
    siblings = {f".{other.stem}" for other in KERNELS}
    tritons = {"triton", "triton.language", "triton.language.extra.cuda"}
    allowed = {"torch", "math", "typing"} | tritons | siblings
    if path.stem == "_launch":  # it knows how compilers fail
        allowed |= {"warnings", "triton.runtime", "triton.runtime.errors"}
    assert set(imports(read(path))) <= allowed


DEPENDENCIES = {"numpy", "safetensors", "torch"}  # those of pyproject.toml; triton is for kernels


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_a_module_imports_declared_dependencies_and_interop_its_own_inside_functions(path: Path):
    known = DEPENDENCIES | {"gpuzip", *sys.stdlib_module_names}
    tree = read(path)
    outside = {name.split(".")[0] for name in imports(tree)} - known
    at_import = {
        name.split(".")[0] for statement in tree.body for name in imports_outside_functions(statement)
    }
    allowed = {
        "gpuzip.interop": {"faiss", "usearch", "sentence_transformers"},
        "gpuzip.loops": {"numba", "llvmlite"},
        "gpuzip.outcome": {"pyarrow"},
        "gpuzip.plots": {"matplotlib"},
        "gpuzip.words": {"pyarrow", "marisa_trie", "rich"},
    }.get(layer(module(path)), set())
    assert outside <= allowed
    assert layer(module(path)) == "gpuzip.loops" or not outside & at_import


FORBIDDEN_CALLS = {
    *("print", "eval", "exec"),
    *("torch.load", "torch.save", "np.load", "numpy.load"),
    *("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"),
    *("np.random.seed", "numpy.random.seed", "random.seed", "torch.set_rng_state"),
    *("warnings.filterwarnings", "warnings.simplefilter"),
}


@pytest.mark.parametrize("path", LIBRARY + KERNELS, ids=label)
def test_no_module_prints_seeds_the_world_or_reads_pickles(path: Path):
    tree = read(path)
    assert not set(calls(tree)) & FORBIDDEN_CALLS
    assert not {"pickle", "random", "shelve", "marshal"} & {name.split(".")[0] for name in imports(tree)}


DRAWS = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "multinomial", "normal")}


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_every_random_draw_names_its_generator(path: Path):
    drawn = [n for n in nodes(read(path)) if isinstance(n, ast.Call) and ast.unparse(n.func) in DRAWS]
    assert [ast.unparse(n) for n in drawn if "generator" not in {k.arg for k in n.keywords}] == []
    numpy = [ast.unparse(n) for n in nodes(read(path)) if ast.unparse(n).startswith("np.random.")]
    assert all(text.startswith(("np.random.default_rng", "np.random.Generator")) for text in numpy)
    assert "np.random.default_rng()" not in numpy
