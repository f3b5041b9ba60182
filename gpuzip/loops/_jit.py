"""Compiles loops on their first call, without the interpreter lock, and keeps them for later processes."""

import gc
import logging
import threading
import time
from functools import cache, cached_property

from llvmlite import binding
from numba.core import cgutils, config, sigutils, types, typing
from numba.core.registry import CPUDispatcher
from numba.core.typeconv import Conversion
from numba.extending import intrinsic

from gpuzip._core import background
from gpuzip._core.waiting import NotReadyError, Way, way
from gpuzip.loops._cache import LoopCache, folder
from gpuzip.loops._compiler import LoopCompiler

UNROLLED = 16  # up to this size, loops are compiled for each size
_LONG = 2.0  # seconds of compiling that are worth a line


def jit(*signatures, inner=False, name=None, **options):
    """Return a decorator like numba.njit, which compiles at the first call and keeps the result on disk.

    signatures: what to compile, each when a call needs it. Other arguments, such as arrays that are not
    aligned, get code of their own. inner: other loops alone call the function, which saves what Python needs.
    name: what a function that is made for a setting is called on disk.
    """

    def compiled(function):
        function.__qualname__ = name or function.__qualname__
        if config.DISABLE_JIT:
            return function
        settings = {"nopython": True, "boundscheck": None, "nogil": True, "error_model": "numpy"}
        wrappers = {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner, "_nrt": False}
        kind = _InnerLoop if inner else _Loop
        loop = kind(function, targetoptions=settings | wrappers | options, pipeline_class=LoopCompiler)
        loop.signatures_as_text = signatures
        if not inner:
            loop._cache = LoopCache(function)
        return loop

    return compiled


class _Loop(CPUDispatcher):
    """A function of numba's that compiles a declared signature at the first call with such arguments."""

    signatures_as_text = ()

    def compile(self, sig):
        arguments, _ = sigutils.normalize_signature(sig)
        known = self.overloads.get(tuple(arguments))
        if known is not None:  # numba would wait for a thread that compiles
            return known.entry_point
        background.check()
        if way() is Way.READY and not self._is_at_hand(sig):
            raise NotReadyError(f"{self.py_func.__qualname__}: the loop must be compiled first.")
        with _watch:
            return super().compile(sig)

    def _is_at_hand(self, sig):
        """Return whether no more is to be done than to load a file, now."""
        return not background.is_at_work() and self._cache.holds(sig, self.targetctx)

    def _declared(self, args, worst):
        """Return the first declared signature to which these types can be converted, or None."""
        for text in self.signatures_as_text:
            arguments, result = sigutils.normalize_signature(text)
            ways = [
                self.typingctx.can_convert(own, wanted) for own, wanted in zip(args, arguments, strict=True)
            ]
            if all(way is not None and way <= worst for way in ways):
                return typing.signature(result, *arguments)
        return None

    @cached_property
    def address(self):
        """Where the machine code of the first declared signature is, for `at_address`."""
        return self.address_of(0)

    def address_of(self, number):
        """The same of another declared signature."""
        arguments, result = sigutils.normalize_signature(self.signatures_as_text[number])
        self.compile(typing.signature(result, *arguments))
        compiled = self.overloads[arguments]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)

    def _compile_for_args(self, *args, **kws):
        """Return what to call with these arguments, for which there is no code yet: numba calls this."""
        self._compilation_chain_init_hook()
        found = self._declared([self.typeof_pyval(value) for value in args], Conversion.safe)
        if found is None or found.args in self.overloads:
            return super()._compile_for_args(*args, **kws)
        self.compile(found)
        return self

    def get_call_template(self, args, kws):
        """Return the signature by which a loop calls this one: numba calls this."""
        python, args = self._compiler.fold_argument_types(args, kws)
        found = self._declared(args, Conversion.unsafe)
        if found is None:
            return super().get_call_template(args, {})
        self.compile(found)
        name, own = self.py_func.__name__, self.overloads[found.args].signature
        return typing.make_concrete_template(name, key=name, signatures=[own]), python, args, {}


class _InnerLoop(_Loop):
    def _is_at_hand(self, sig):
        return True  # the loop that calls it is compiled after all, as its file is damaged

    def add_overload(self, compiled):
        self.overloads[tuple(compiled.signature.args)] = compiled

    def __call__(self, *args, **kws):
        raise TypeError(f"{self.py_func.__name__}: Python must not call an inner loop; other loops do.")


class _Watch(threading.local):
    """Adds up the seconds in which loops are compiled or loaded, and says so once if they are many.

    Python's garbage collector rests meanwhile: it finds little, and takes a tenth of the time.
    """

    depth, start, collects = 0, 0.0, False
    total, told = 0.0, False  # of the process: set on the class

    def __enter__(self):
        self.depth += 1
        if self.depth == 1:
            self.start = time.perf_counter()
            self.collects = gc.isenabled() and way() is not Way.REHEARSED  # others run beside the thread
            if self.collects:
                gc.disable()

    def __exit__(self, *error):
        self.depth -= 1
        if self.depth == 0:
            if self.collects:
                gc.enable()
            _Watch.total += time.perf_counter() - self.start
            if _Watch.total > _LONG and not _Watch.told:
                _Watch.told = True
                _tell()


def _tell():
    place = folder()
    kept = f"Later processes load them from {place}." if place else "They are kept in this process alone."
    logging.getLogger("gpuzip").info("gpuzip compiles loops for the CPU, which takes some seconds. %s", kept)


_watch = _Watch()


@cache
def has_features(*names):
    """Return whether this CPU has these instructions and numba may use them."""
    free = config.CPU_NAME is None and config.CPU_FEATURES is None and config.ENABLE_AVX
    features = binding.get_host_cpu_features() if free else {}
    return all(features.get(name, False) for name in names)


def unrolled(size, of=0):
    """Return a tuple of this length, which compiled code treats as a constant and is compiled for."""
    return (of,) * size


def at_address(loop, number=0):
    """Return call(address, *arguments) for loops, which calls this loop at its address.

    number: see `address_of`.
    A loop that is called by name is compiled again within its caller: long ones are called like this.
    """
    arguments, result = sigutils.normalize_signature(loop.signatures_as_text[number])

    @intrinsic
    def call(context, address, *given):
        def generate(context, builder, signature, values):
            parts = cgutils.unpack_tuple(builder, values[1], len(arguments))
            kind = context.call_conv.get_function_type(result, arguments)
            place = builder.inttoptr(values[0], kind.as_pointer())
            return context.call_conv.call_function(builder, place, result, arguments, parts)[1]

        return result(types.intp, types.StarArgTuple(arguments)), generate

    return call


@intrinsic
def apart(typing):
    """Ask LLVM, within an inner loop that seldom runs, for few instructions and for one copy of them."""

    def generate(context, builder, signature, arguments):
        for name in ("noinline", "optsize"):
            builder.function.attributes.add(name)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def out_of_line(typing):
    """Ask LLVM, within an inner loop, for one copy of it, as fast as it can be."""

    def generate(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def wide_vectors(typing):
    """Ask LLVM, within a loop's function, for the widest vectors; on x86 it uses half of them by default."""

    def generate(context, builder, signature, arguments):
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # its add() refuses attributes of this kind
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate
