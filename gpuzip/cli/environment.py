"""`gpuzip env`."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from gpuzip import __version__
from gpuzip._core.tables import text_table
from gpuzip.cli.output import Output, facts, size
from gpuzip.ops import OPS, loops_are_used
from gpuzip.ops._here import has_registers

_PACKAGES = (
    *("numpy", "safetensors", "triton", "numba", "pyarrow", "marisa-trie", "faiss-cpu", "faiss-gpu"),
    *("usearch", "sentence-transformers", "matplotlib", "typer", "rich"),
)
#: Modules of an extra of pyproject.toml, and what it adds.
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "cpu": (("numba",), "compiled loops: most operators on a CPU are 2 to 30 times faster"),
    "faiss": (("faiss",), "to_faiss and from_faiss; convert to and from faiss"),
    "usearch": (("usearch",), "to_usearch and from_usearch; convert to and from usearch"),
    "plot": (("matplotlib",), "gpuzip.plots"),
    "arrow": (("pyarrow",), "to_arrow and from_arrow; parquet and arrow files"),
    "hdf5": (("h5py",), "HDF5 files"),
    "hub": (("huggingface_hub",), "from_hub and push_to_hub"),
    "remote": (("fsspec", "aiohttp"), "URLs: open, load, info, load_codec and save"),
    "duckdb": (("duckdb", "pyarrow"), "to_duckdb and from_duckdb"),
    "lance": (("lance", "pyarrow"), "to_lance and from_lance"),
    "datasets": (("datasets", "pyarrow"), "to_datasets and from_datasets"),
    "qdrant": (("qdrant_client",), "to_qdrant and from_qdrant"),
    "ray": (("ray", "pyarrow"), "distributed.Encoder in Ray Data, and compress_dataset"),
    "dask": (("dask", "pyarrow"), "distributed.Encoder in Dask"),
    "spark": (("pyspark", "pyarrow"), "distributed.Encoder in Spark"),
    "daft": (("daft", "pyarrow"), "distributed.Encoder in Daft"),
    "words": (("pyarrow", "marisa_trie", "rich"), "word vectors"),
    "cli": (("typer", "rich"), "this command line, and bars of progress"),
}


def run(as_json: bool) -> None:
    """Show what is here."""
    versions = {
        "gpuzip": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    } | {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    devices, paths = _devices(), _paths()
    missing = {name: why for name, (modules, why) in EXTRAS.items() if not all(map(find_spec, modules))}
    heads = ("operator", "CPU", "GPU")
    table = text_table([heads, *((name, path["cpu"], path["gpu"]) for name, path in paths.items())])
    parts = [
        facts("Versions", dict(versions)),
        facts("Devices", devices),
        "Operators\n" + "\n".join(f"  {line.rstrip()}" for line in table),
        "Why\n" + "\n".join(f"  {line}" for line in _reasons()),
        "Extras that would add\n" + "\n".join(f"  {name:<12}{why}" for name, why in missing.items())
        if missing
        else "All extras are installed.",
    ]
    result = {
        "versions": versions,
        "devices": devices,
        "operators": paths,
        "why": _reasons(),
        "missing_extras": missing,
    }
    Output(as_json).show(result, "\n\n".join(parts))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, str | None]:
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    found: dict[str, str | None] = {
        "cpu": f"{_processor()}, {os.cpu_count()} cores, {threads} threads, {capability}"
    }
    if not torch.cuda.is_available():
        return found | {"gpu": "none that torch finds"}
    for number in range(torch.cuda.device_count()):
        about: Any = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{about.name}, {size(about.total_memory)}, sm_{about.major}{about.minor}"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _paths() -> dict[str, dict[str, str]]:
    loops, gpu = loops_are_used(), _gpu_path()
    return {
        op.name: {"cpu": "loops" if op.loops is not None and loops else "torch", "gpu": gpu}
        for op in sorted(OPS.values(), key=lambda op: op.name)
    }


def _gpu_path() -> str:
    if not torch.cuda.is_available():
        return "-"
    return "kernel" if find_spec("triton") else "error"


def _reasons() -> list[str]:
    reasons = []
    if loops_are_used():
        registers = has_registers()
        reasons.append("loops: compiled by numba; GPUZIP_LOOPS=0 turns them off.")
        reasons.append(
            "search: one pass over the codes, by instructions of AVX2."
            if registers
            else "search: a scan and a top-k, since this processor has no AVX2."
        )
    elif find_spec("numba") is None:
        reasons.append("torch: numba is not installed. pip install 'gpuzip[cpu]' compiles loops.")
    else:
        reasons.append("torch: loops are turned off by GPUZIP_LOOPS or NUMBA_DISABLE_JIT, or numba fails.")
    if not torch.cuda.is_available():
        reasons.append("-: torch finds no GPU. Kernels in Triton run where it does.")
    elif find_spec("triton") is None:
        reasons.append("error: triton is not installed. pip install triton.")
    else:
        reasons.append("kernel: Triton, compiled at the first call.")
    return reasons
