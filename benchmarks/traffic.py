"""What a program that was compiled for a GPU moves through the memory, as XLA's text of it tells."""

import collections
from collections.abc import Iterator
import math
import re

_BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "s8": 1, "u8": 1, "pred": 1}
_NO_WORK = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_KIND = r"\((?:[^()]|\([^()]*\))*\)|\S+"  # of one array, or of several, whose layouts may have brackets, too
_INSTRUCTION = re.compile(rf"^ *(?:ROOT )?%?([\w.\-]+) = ({_KIND}) ([\w\-]+)\((.*?)\)(.*)$", re.MULTILINE)
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")


def read(text: str, passes: int) -> dict[str, dict[str, float]]:
    """The kernels of one run, and the bytes of what they take and give, of convolutions and of all others.

    Bytes that a kernel finds in the cache count, and what it reads again does not: it is neither
    the minimum nor the maximum.

    Args:
        text: the compiled program.
        passes: of a loop whose number of turns is not known before, as of the erasing loop.
    """
    computations = {name: _INSTRUCTION.findall(body) for _, name, body in _COMPUTATION.findall(text)}
    entry = next(name for is_entry, name, _ in _COMPUTATION.findall(text) if is_entry)
    sizes = {name: count_bytes(kind) for found in computations.values() for name, kind, *_ in found}

    def taken(operands: str, rest: str) -> int:
        """Bytes that a kernel reads: of what it cuts slices from, no more than these."""
        fused = re.search(r"calls=%?([\w.\-]+)", rest)
        if fused is None:
            return sum(sizes.get(operand, 0) for operand in _OPERAND.findall(operands))
        inside = computations[fused[1]]
        total = 0
        for parameter in (name for name, _, operation, *_ in inside if operation == "parameter"):
            users = [(name, operation) for name, _, operation, used, _ in inside if parameter in _OPERAND.findall(used)]
            is_cut = users and all(operation in ("slice", "dynamic-slice") for _, operation in users)
            total += sum(sizes[name] for name, _ in users) if is_cut else sizes[parameter]
        return total

    def walk(computation: str, times: int) -> Iterator[tuple[str, int, int]]:
        for name, _, operation, operands, rest in computations[computation]:
            if operation in ("while", "call", "conditional"):
                known = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
                turns = (int(known[1]) if known else passes) if operation == "while" else 1
                for called in _CALLED.findall(rest):
                    yield from walk(called, times * turns)
            elif operation not in _NO_WORK:
                group = "convolutions" if "__cudnn$conv" in rest else "others"
                yield group, times, times * (sizes[name] + taken(operands, rest))

    kernels, moved = collections.Counter(), collections.Counter()
    for group, times, number in walk(entry, 1):
        kernels[group] += times
        moved[group] += number
    return {"kernels": dict(kernels), "moved_gb": {group: round(number / 1e9, 6) for group, number in moved.items()}}


def count_bytes(kind: str) -> int:
    """Of an array, or of several: of all in a text such as `(bf16[8,4]{1,0}, u8[0]{0})`."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", kind)
    return sum(_BYTES[dtype] * math.prod(int(side) for side in sides.split(",") if side) for dtype, sides in found)
