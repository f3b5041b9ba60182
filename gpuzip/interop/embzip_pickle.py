"""Reads a pickle without running it: what it names is never imported, and what it calls is never called.

`pickle.Unpickler.find_class` can refuse names, but what it allows it calls, with arguments that the file
chooses. Here opcodes build plain values, and a `Made` for each call of a known name, which only says what the
file asked for. Its readers take it apart and check every size against bytes that are there.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from gpuzip._core.checks import printable

#: Names that files of embzip hold, by numpy 1 and 2, every build of FAISS, and torch.save.
_KNOWN = re.compile(
    r"numpy\.(ndarray|dtype)|numpy\._?core\.multiarray\.(_reconstruct|scalar)|numpy\._?core\.numeric\._frombuffer"
    r"|_codecs\.encode|faiss(\.swigfaiss\w*)?\.IndexIDMap2"
    r"|torch\.(Size|ByteStorage)|torch\._utils\._rebuild_tensor_v2|collections\.OrderedDict"
)
_MOST = 10_000  # opcodes; embzip's files have about 100
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_EMPTY: dict[str, type] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_MARK = object()


@dataclass(eq=False)
class Name:
    """A known name, such as numpy.dtype: only its text."""

    text: str


@dataclass(eq=False)
class Made:
    """A call that a pickle asks for, and the state that it sets: not called."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


@dataclass(eq=False)
class Stored:
    """A storage of torch.save that lies beside the pickle."""

    id: tuple[Any, ...]


def inert(file: BinaryIO) -> Any:
    """The value of the pickle that begins here; the file is then behind it.

    Raises ValueError for a name that embzip's files do not hold, an opcode that they do not use, and bytes
    that are no pickle.
    """
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number >= _MOST:
                raise ValueError(f"its pickle has more than {_MOST} opcodes")
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged: {error!r:.100}") from error
    raise ValueError("its pickle has no end")


@dataclass(eq=False)
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, name: str, argument: Any) -> None:
        if name in _NUMBERS or name in _TEXTS or name in _BYTES:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        elif name in _PUTS:
            self.memo[argument] = self.top()
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise ValueError(f"its pickle uses {name}, which embzip's do not")
            step(*(() if argument is None else (argument,)))

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("its pickle is damaged")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        del self.stack[-1]
        return value

    def popped(self) -> list[Any]:
        """All above the last mark, which goes too."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("its pickle is damaged")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def _mark(self) -> None:
        self.stack.append(_MARK)

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.top()

    def _tuple(self) -> None:
        self.stack.append(tuple(self.popped()))

    def _append(self) -> None:
        value = self.pop()
        _of(list, self.top()).append(value)

    def _appends(self) -> None:
        values = self.popped()
        _of(list, self.top()).extend(values)

    def _setitem(self) -> None:
        value, key = self.pop(), self.pop()
        _of(dict, self.top())[_of(str, key)] = value

    def _setitems(self) -> None:
        values = self.popped()
        for key, value in zip(values[::2], values[1::2], strict=True):
            _of(dict, self.top())[_of(str, key)] = value

    def _global(self, argument: str) -> None:
        self.stack.append(_known(argument.replace(" ", ".", 1)))

    def _stack_global(self) -> None:
        last, first = self.pop(), self.pop()
        self.stack.append(_known(f"{_of(str, first)}.{_of(str, last)}"))

    def _reduce(self) -> None:
        args, called = _of(tuple, self.pop()), _of(Name, self.pop())
        self.stack.append(Made(called.text, args))

    _newobj = _reduce

    def _build(self) -> None:
        state = self.pop()
        _of(Made, self.top()).state = state

    def _binpersid(self) -> None:
        self.stack.append(Stored(_of(tuple, self.pop())))


def _known(text: str) -> Name:
    if not _KNOWN.fullmatch(text):
        raise ValueError(f"its pickle names {printable(text):.80}, which embzip's do not")
    return Name(text)


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"its pickle has a {type(value).__name__} in place of a {kind.__name__}")
    return value


def bytes_of(value: Any) -> bytes:
    """Bytes, which protocols before 3 write as text in latin-1. Raises ValueError for all else."""
    if isinstance(value, Made) and value.name == "_codecs.encode":
        text, encoding = value.args
        if encoding == "latin1" and isinstance(text, str):
            return text.encode("latin1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ValueError("bytes must stand where an array has them")


def array_of(value: Any) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of a uint8 ndarray. Raises ValueError for another, and where the bytes are too few."""
    if isinstance(value, Made) and value.name.endswith("._frombuffer"):
        raw, dtype, shape, order = value.args
        by_columns = order != "C"
    elif isinstance(value, Made) and value.name.endswith("._reconstruct"):
        _, shape, dtype, by_columns, raw = value.state
    else:
        raise ValueError("codes must be an array")
    if not isinstance(dtype, Made) or dtype.name != "numpy.dtype" or dtype.args[0] != "u1" or by_columns:
        raise ValueError("codes must be uint8 in order of rows")
    return checked_shape(shape, len(data := bytes_of(raw))), data


def checked_shape(shape: Any, nbytes: int) -> tuple[int, ...]:
    """A shape, if it is one of that many uint8 values."""
    if isinstance(shape, Made) and shape.name == "torch.Size":
        (shape,) = shape.args
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape must be whole numbers")
    if math.prod(shape) != nbytes:
        raise ValueError(f"an array must have its {nbytes} bytes; its shape is {shape!r:.80}")
    return shape
