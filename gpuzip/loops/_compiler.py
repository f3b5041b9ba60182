"""Numba's compiler for short loops: what they do not use is left out, which takes half of its time.

Loops have no closures, no lists, and no memory of their own whose uses would be counted.
"""

import operator
from typing import ClassVar

import numba
from numba.core import codegen, compiler, typed_passes, types, untyped_passes
from numba.core.compiler_machinery import PassManager

from gpuzip._core import background

_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.GenericRewrites,
    untyped_passes.InlineInlinables,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.IRLegalization,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


_NUMBERS = types.Number, types.Boolean
_OPERATORS = {min, max, abs, bool, range} | {x for x in vars(operator).values() if callable(x)} - {
    operator.pow
}
_HAS_BUILDERS = numba.version_info.short >= (0, 62)  # its pass managers return two things


class LoopCompiler(compiler.CompilerBase):
    """The passes of numba's that loops need. An inner loop becomes machine code only within its callers."""

    def compile_extra(self, func):
        state = self.state
        is_inner = state.flags.no_cpython_wrapper
        library = (_InnerLibrary if is_inner else _Library)(state.targetctx.codegen(), func.__qualname__)
        library.enable_object_caching()
        state.library, state.flags.no_compile, state.typingctx = library, is_inner, _Typing(state.typingctx)
        result = super().compile_extra(func)
        if is_inner:
            result = result._replace(entry_point=library)
            state.targetctx.insert_user_function(library, result.fndesc, [library])
        else:
            for environment in result._find_referenced_environments():  # those of inner loops, too
                library.codegen.set_env(environment.env_name, environment)
        return result

    def define_pipelines(self):
        passes = PassManager("gpuzip")
        for one in _PASSES:
            passes.add_pass(one, one.__name__)
        passes._ENFORCING = False
        passes.finalize()
        return [passes]


class _Typing:
    """A typing context that resolves operators on numbers once, which take as long as anything else."""

    _known: ClassVar = {}

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def resolve_function_type(self, function, arguments, keywords):
        background.check()  # called every few milliseconds
        is_simple = isinstance(function, types.Function) and function.typing_key in _OPERATORS
        if not is_simple or not all(isinstance(argument, _NUMBERS) for argument in arguments):
            return self._context.resolve_function_type(function, arguments, keywords)
        arguments = tuple(map(types.unliteral, arguments))
        key = id(function), arguments
        if key not in self._known:  # the function is kept, so that no other has its id
            found = self._context.resolve_function_type(function, arguments, keywords)
            self._known[key] = function, found
        return self._known[key][1]


class _Library(codegen.JITCodeLibrary):
    """Machine code that is optimized once, when all of a function is there."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        background.check()
        if _HAS_BUILDERS:
            manager, builder = self._codegen._module_pass_manager()
            manager.run(self._final_module, builder)
        else:
            super()._optimize_final_module()
        background.check()


class _InnerLibrary(_Library):
    """Code for other functions, which is optimized and translated with them."""

    def _optimize_final_module(self):
        return

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True
