"""The direction of imports, and a few things that the library never does."""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A module imports from lower layers, and from its own package. Arrows only point down.
LAYERS = [
    ["gpuzip.__main__"],
    ["gpuzip.cli"],
    ["gpuzip"],
    ["gpuzip.distributed", "gpuzip.large", "gpuzip.reports"],
    ["gpuzip.interop", "gpuzip.nn", "gpuzip.plots", "gpuzip.sizes", "gpuzip.sklearn"],
    ["gpuzip.dataset", "gpuzip.words"],
    ["gpuzip.api", "gpuzip.outcome", "gpuzip.similar"],
    ["gpuzip.choose"],
    ["gpuzip.archive"],
    ["gpuzip.codecs"],
    ["gpuzip.rotations"],
    ["gpuzip.search", "gpuzip.storage", "gpuzip.training"],
    ["gpuzip.ops"],
    ["gpuzip.loops"],
    ["gpuzip._core"],
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


def nodes_at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from nodes_at_run_time(other)
        else:
            yield child
            yield from nodes_at_run_time(child)


def imports(tree: ast.AST, nodes: Callable[[ast.AST], Iterable[ast.AST]] = ast.walk) -> Iterator[str]:
    """Full names of imported modules; a relative import keeps its dots."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def imports_outside_functions(statement: ast.stmt) -> Iterator[str]:
    """What one statement of a module imports when the module is imported."""
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield from imports(ast.Module([statement], []), nodes_at_run_time)


def failing(paths: list[Path], wrong: Callable[[Path], Iterable[str]]) -> dict[str, list[str]]:
    """Faults by file; empty if there are none."""
    found = {label(path): sorted(wrong(path)) for path in paths}
    return {name: names for name, names in found.items() if names}


@cache
def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(read(path)))


@cache
def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Calls in a module: the text of the function, and the node of the call."""
    return [(ast.unparse(node.func), node) for node in nodes_of(path) if isinstance(node, ast.Call)]


def names_called(path: Path) -> set[str]:
    return {name for name, _ in calls(path)}


@cache
def imported(path: Path) -> list[str]:
    """Full names of all that a module imports, at once or in functions."""
    return list(imports(read(path), lambda tree: nodes_of(path)))


def upward(path: Path, names: list[str]) -> list[str]:
    """The imported names that are not below the module at `path`."""
    own = layer(module(path))
    inner = [name for name in names if name.split(".")[0] == "gpuzip" and layer(name) != own]
    return [name for name in inner if RANK[layer(name)] <= RANK[own]]


def test_every_module_has_a_layer():
    assert {layer(module(path)) for path in LIBRARY} == set(RANK)


def test_imports_point_down():
    assert failing(LIBRARY, lambda path: upward(path, imported(path))) == {}


def test_no_module_imports_itself_by_way_of_others():
    """Imports for types and imports inside functions count too."""
    known = {module(path) for path in LIBRARY}

    def of(path: Path) -> set[str]:
        found = set()
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in known else node.module for name in names}
        return (found & known) - {module(path), "gpuzip"}

    TopologicalSorter({module(path): of(path) for path in LIBRARY if module(path) != "gpuzip"}).prepare()


def test_an_arrow_up_or_across_is_seen():
    tree = ast.parse(
        "if TYPE_CHECKING:\n    from gpuzip.api import save\nelse:\n    import gpuzip.api\n"
        "def f():\n    from gpuzip.codecs.codes import Codes\n    import gpuzip.storage, gpuzip.ops.bits\n"
    )
    wrong = upward(ROOT / "gpuzip" / "search" / "run.py", list(imports(tree)))
    assert sorted(wrong) == ["gpuzip.api", "gpuzip.api", "gpuzip.codecs.codes", "gpuzip.storage"]


def test_imports_are_absolute():
    assert failing(LIBRARY, lambda path: [n for n in imported(path) if n.startswith(".")]) == {}


def test_kernels_and_loops_are_reached_by_name_through_their_operators_alone():
    def wrong(path: Path) -> set[str]:
        names = {name for name in imported(path) if "kernels" in name.split(".")}
        if layer(module(path)) != "gpuzip.loops":
            names |= {name for name in imported(path) if layer(name) == "gpuzip.loops"}
        by_name = {"importlib.import_module", "import_module", "__import__"} & names_called(path)
        may = module(path) in ("gpuzip.ops._define", "gpuzip.ops._dispatch")
        return names | (by_name ^ ({"importlib.import_module"} if may else set()))

    assert failing(LIBRARY, wrong) == {}


def test_a_kernel_imports_torch_triton_and_its_siblings():
    siblings = {f".{other.stem}" for other in KERNELS}
    tritons = {"triton", "triton.language", "triton.language.extra.cuda"}
    allowed = {"torch", "math", "typing"} | tritons | siblings
    of_launch = {"warnings", "triton.runtime", "triton.runtime.errors"}  # it knows how compilers fail

    def wrong(path: Path) -> set[str]:
        return set(imported(path)) - allowed - (of_launch if path.stem == "_launch" else set())

    assert failing(KERNELS, wrong) == {}


DEPENDENCIES = {"numpy", "safetensors", "torch"}  # those of pyproject.toml; triton is for kernels


OPTIONAL = {
    "gpuzip.cli": {"typer"},
    "gpuzip.interop": {
        *("faiss", "usearch", "sentence_transformers", "model2vec", "tokenizers", "pyarrow"),
        *("huggingface_hub", "duckdb", "lance", "datasets", "qdrant_client", "h5py"),
    },
    "gpuzip.nn": {"transformers", "sentence_transformers"},
    "gpuzip.loops": {"numba", "llvmlite"},
    "gpuzip.choose": {"pyarrow"},
    "gpuzip.dataset": {"pyarrow"},
    "gpuzip.distributed": {"ray"},
    "gpuzip.plots": {"matplotlib"},
    "gpuzip.reports": {"matplotlib", "pandas"},
    "gpuzip.words": {"pyarrow", "marisa_trie"},
    "gpuzip.storage": {"fsspec"},
    "gpuzip._core": {"rich"},
}


# Modules that derive classes from those of one library, and that nobody imports without it.
OF_A_LIBRARY = {
    "gpuzip.interop.langchain": {"langchain_core"},
    "gpuzip.interop.llama_index": {"llama_index"},
    "gpuzip.nn.sentence_transformers": {"sentence_transformers", "tokenizers"},
    "gpuzip.nn.transformers": {"transformers"},
    "gpuzip.sklearn": {"sklearn"},
}


def test_modules_of_a_library_are_imported_inside_functions():
    def wrong(path: Path) -> list[str]:
        if module(path) in OF_A_LIBRARY:
            return []
        named = [name for one in read(path).body for name in imports_outside_functions(one)]
        return [name for name in named if name in OF_A_LIBRARY]

    assert failing(LIBRARY, wrong) == {}
    assert set(OF_A_LIBRARY) <= {module(path) for path in LIBRARY}


def test_optional_dependencies_are_imported_by_few_packages_and_inside_functions():
    known = DEPENDENCIES | {"gpuzip", *sys.stdlib_module_names}

    def wrong(path: Path) -> set[str]:
        tree, own = read(path), layer(module(path))
        outside = {name.split(".")[0] for name in imports(tree, nodes_at_run_time)} - known
        at_import = {
            name.split(".")[0] for statement in tree.body for name in imports_outside_functions(statement)
        }
        outside -= OF_A_LIBRARY.get(module(path), set())
        early = set() if own in ("gpuzip.loops", "gpuzip.cli") else outside & at_import
        return outside - OPTIONAL.get(own, set()) | early

    assert failing(LIBRARY, wrong) == {}


FORBIDDEN_CALLS = {
    *("print", "eval", "exec"),
    *("torch.load", "torch.save", "np.load", "numpy.load"),
    *("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"),
    *("np.random.seed", "numpy.random.seed", "random.seed", "torch.set_rng_state"),
    *("warnings.filterwarnings", "warnings.simplefilter"),
}


FORBIDDEN_IMPORTS = {"pickle", "random", "shelve", "marshal"}


def test_no_module_prints_seeds_the_world_or_reads_pickles():
    def wrong(path: Path) -> set[str]:
        packages = {name.split(".")[0] for name in imported(path)}
        return names_called(path) & FORBIDDEN_CALLS | packages & FORBIDDEN_IMPORTS

    assert failing(LIBRARY + KERNELS, wrong) == {}


DRAWS = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "multinomial", "normal")}


NUMPY_DRAWS = ("np.random.default_rng", "np.random.Generator")


def test_every_random_draw_names_its_generator():
    def wrong(path: Path) -> list[str]:
        drawn = [call for name, call in calls(path) if name in DRAWS]
        numpy = [ast.unparse(call) for name, call in calls(path) if name.startswith("np.random.")]
        return [
            *(ast.unparse(n) for n in drawn if "generator" not in {k.arg for k in n.keywords}),
            *(text for text in numpy if not text.startswith(NUMPY_DRAWS) or text.endswith("rng()")),
        ]

    assert failing(LIBRARY, wrong) == {}


MAKERS = {
    f"torch.{name}"
    for name in ("empty", "zeros", "ones", "full", "arange", "tensor", "rand", "randn", "randint", "randperm")
} | {"torch.linspace", "torch.eye", "torch.as_tensor"}
OF_DEFAULT_DTYPE = {
    f"torch.{name}" for name in ("empty", "zeros", "ones", "rand", "randn", "linspace", "eye")
}


def test_every_tensor_is_made_on_a_named_device_and_in_a_named_dtype():
    """Torch's defaults are the caller's. Samples of operators are inputs of tests, and exempt."""

    def wrong(path: Path) -> list[str]:
        functions = [f for f in nodes_of(path) if isinstance(f, ast.FunctionDef)]
        samples = [f for f in functions if f.name.endswith("samples") or f.name in SAMPLERS]
        inputs = {node for f in samples for node in ast.walk(f)}
        return [
            ast.unparse(call)
            for made, call in calls(path)
            if call not in inputs and not _names_what_it_makes(made, call)
        ]

    assert failing([path for path in LIBRARY + KERNELS if path.name != "_samples.py"], wrong) == {}


SAMPLERS = {"apart", "_inputs", "_extras", "_with_ids", "_random_bytes", "_ids"}


def _names_what_it_makes(made: str, call: ast.Call) -> bool:
    named = {keyword.arg for keyword in call.keywords}
    return (
        made not in MAKERS
        or "out" in named
        or ("device" in named and ("dtype" in named or made not in OF_DEFAULT_DTYPE))
    )


PRODUCTS = {f"torch.{name}" for name in ("mm", "bmm", "matmul", "baddbmm", "addmm", "einsum", "mv", "cdist")}
PRODUCTS |= {"torch.nn.functional.linear", "torch.dot", "torch.tensordot", "torch.inner"}


def test_matrix_products_are_made_in_one_place_that_settings_of_torch_do_not_reach():
    def wrong(path: Path) -> list[str]:
        operators = [n for n in nodes_of(path) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)]
        made = [call for name, call in calls(path) if name in PRODUCTS]
        return [ast.unparse(n) for n in [*operators, *made]]

    assert failing(LIBRARY + KERNELS, wrong) == {}
