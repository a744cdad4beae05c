"""The instructions of a pickle, read before the first one is carried out: which they are, and what they cost.

What may be built: dicts, lists, tuples, numbers, strings, and calls of names that the caller allows. A pickle can hold
one object in many places, so that a few bytes describe an exponential number of parts; whoever walks through the result
must visit each object once. What Python itself would walk through while it loads is refused here.
"""

from collections.abc import Collection
import pickletools
from typing import BinaryIO

_OPCODES = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "MEMOIZE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "POP",
        "POP_MARK",
        "DUP",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "GLOBAL",
        "REDUCE",
        "BUILD",
        "BINPERSID",
    ]
)
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
_MARK = object()
_ATOMS = (pickletools.pyint, pickletools.pylong, pickletools.pyinteger_or_bool, pickletools.pybool)
_ATOMS += (pickletools.pyfloat, pickletools.pynone, pickletools.pystring, pickletools.pyunicode)
_ATOMS += (pickletools.pybytes_or_str,)


class PickleError(ValueError):
    """A pickle with an instruction or a name that is refused; the message says which."""


def check(file: BinaryIO, names: Collection[tuple[str, str]]) -> None:
    """Reads the instructions of the next pickle of a file, and leaves the file behind it.

    Args:
        file: at the start of a pickle.
        names: (module, name) of what it may call.

    Raises:
        PickleError: for another instruction, another name, or a key of a dict that is neither a number nor text.
    """
    stack, memo = [], {}  # whether each value is a number or text
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise PickleError(f"its pickle has the instruction {opcode.name} at byte {position}, which is refused")
        if opcode.name == "GLOBAL" and tuple(argument.split(" ", 1)) not in names:
            raise PickleError(f"its pickle names {argument.replace(' ', '.')}, which is refused")
        if opcode.name in _PUTS:
            index = len(memo) if argument is None else int(argument)
            if index > position:  # the C code of pickle allocates memory for all numbers up to it
                raise PickleError(f"its pickle counts values up to {index} at byte {position}, which is refused")
            memo[index] = stack[-1]
        elif opcode.name in _GETS:
            stack.append(memo[int(argument)])
        elif opcode.name == "DUP":
            stack.append(stack[-1])
        else:
            _carry_out(opcode, stack, position)


def _carry_out(opcode: pickletools.OpcodeInfo, stack: list, position: int) -> None:
    """Takes from the stack what an instruction takes, and puts there whether its result is a number or text."""
    if pickletools.markobject in opcode.stack_before or opcode.name == "POP_MARK":
        start = len(stack) - 1 - stack[::-1].index(_MARK)
        taken, stack[start:] = stack[start + 1 :], []
        others = opcode.stack_before.index(pickletools.markobject) if opcode.stack_before else 0
        del stack[len(stack) - others :]
    else:
        count = len(opcode.stack_before)
        taken = stack[len(stack) - count + 1 :] if opcode.name == "SETITEM" else []
        del stack[len(stack) - count :]
    # Python computes the hash of a key from all its parts, however often one object is among them.
    if opcode.name in ("SETITEM", "SETITEMS", "DICT") and not all(taken[::2]):
        raise PickleError(f"its pickle has a key that is neither a number nor text at byte {position}")
    stack += [_MARK if kind is pickletools.markobject else kind in _ATOMS for kind in opcode.stack_after]
