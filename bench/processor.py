"""The processor's features that loops of bytes and floats use, and runs that leave some unused."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

#: As LLVM names them.
FEATURES = (
    *("avx2", "avxvnni", "avx512bw", "avx512vbmi", "avx512vnni", "avx512vpopcntdq", "avx512bf16"),
    *("amx-int8", "amx-bf16", "neon", "dotprod", "sve"),
)

_LIMIT = "BENCH_LIMIT"

#: Environment of a process in which torch, its libraries, numba and FAISS use no more. As .ci/lowered has it.
LIMITS = {
    "avx2": {
        _LIMIT: "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt",
        "FAISS_SIMD_LEVEL": "AVX2",
        "FAISS_OPT_LEVEL": "AVX2",  # of older versions
        "TURBOVEC_NO_VNNI": "1",
        "TURBOVEC_NO_GFNI": "1",
    }
}

# NumKong's names of what AVX2 machines have.
_NUMKONG = {"serial", "haswell"}


@cache
def features() -> str:
    """Those that this processor has, whatever the limit."""
    binding: Any = import_module("llvmlite.binding")
    found = binding.get_host_cpu_features()
    return " ".join(name for name in FEATURES if found.get(name))


def limit() -> str:
    """What this process is limited to; empty for everything that the processor has."""
    return os.environ.get(_LIMIT, "")


def why_no_limit(name: str) -> str | None:
    """Why a run with this limit would show nothing; None where it would."""
    if name not in features().split():
        return f"this processor has no {name}: {features()}"
    return (
        f"this processor has {name} alone: a run without a limit is the same" if features() == name else None
    )


def limit_peers() -> None:
    """Turn off what the environment does not. USearch and turbovec have no switch, and keep AVX-512."""
    if limit() and find_spec("numkong"):
        numkong: Any = import_module("numkong")
        for name, is_there in numkong.get_capabilities().items():
            if is_there and name not in _NUMKONG:
                numkong.disable_capability(name)
