"""Launches a kernel for the matrix units, or its simpler form if the compiler cannot build the first."""

import warnings

import triton
from triton.runtime import driver
from triton.runtime.errors import OutOfResources, PTXASError

#: Error of the compiler by (kernel, target) that did not compile.
FALLEN = {}


def launch_or(kernel, fast, simple):
    """Call `fast`. If it does not compile, warn once and call `simple` from then on.

    kernel: name and form, for the message. fast, simple: functions without arguments that launch a kernel and
    write the same outputs. Errors of a running kernel pass through.
    """
    key = (kernel, compile_target())
    if key not in FALLEN:
        try:
            return fast()
        except Exception as error:
            if not _is_of_the_compiler(error):
                raise
            FALLEN[key] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
            warnings.warn(
                f"gpuzip: the kernel {kernel} does not compile for {key[1]} with triton {triton.__version__} "
                f"({FALLEN[key]}). Its simpler form runs instead.",
                stacklevel=2,
            )
    return simple()


def _is_of_the_compiler(error):
    if isinstance(error, triton.CompilationError | OutOfResources | PTXASError):
        return True
    return isinstance(error, RuntimeError) and "PassManager" in str(error)


def compile_target():
    """Return the target, such as "cuda 90", or "interpreter" without a GPU, where nothing is compiled."""
    try:
        target = driver.active.get_current_target()
    except RuntimeError:
        return "interpreter"
    return f"{target.backend} {target.arch}"
