"""A kernel for the matrix units first, its simpler form where this GPU's compiler cannot build it."""

import warnings

import triton
from triton.runtime import driver
from triton.runtime.errors import OutOfResources, PTXASError

#: (kernel, target) that did not compile, and what the compiler said.
FALLEN = {}


def launch_or(kernel, fast, simple):
    """Call `fast`; where it does not compile, say so once and call `simple` from then on.

    kernel: the name and what is special of its form, for the message. fast, simple: launches without
    arguments that write the same outputs. Errors of a kernel that runs pass through.
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
    """`cuda 90`, or "interpreter" where no GPU is: there nothing is compiled."""
    try:
        target = driver.active.get_current_target()
    except RuntimeError:
        return "interpreter"
    return f"{target.backend} {target.arch}"
