"""Reads the text of a compiled HLO module: computations, instructions, shapes, how often each computation runs.

The compiled module is scheduled: the instructions of a computation are in the order in which they are issued.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Bits of an element; f8 variants are found by their prefix.
_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "f4e2m1fn": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "f16": 16,
    "bf16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128,
    "token": 0, "opaque": 0,
}  # fmt: skip

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?: \(.*)? \{$")
_END = re.compile(r"\}(, execution_thread=.*)?\s*")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"([a-z]\w*)\[([0-9,<= ]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclass(frozen=True)
class Shape:
    dtype: str
    dims: tuple[int, ...]
    on_chip: bool = False  # in a TPU's VMEM: reading and writing it is not memory traffic

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = _BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else None)
        if bits is None:
            raise ValueError(f"HLO text: unknown element type {self.dtype!r}")
        return (self.size * bits + 7) // 8

    @property
    def traffic(self) -> int:
        """Bytes that pass through the device's memory when it is read or written."""
        return 0 if self.on_chip else self.bytes


@dataclass
class Instruction:
    name: str
    opcode: str
    type: str
    operands: list[str]
    attributes: str
    is_root: bool = False
    shapes: list[Shape] = field(default_factory=list)  # of the result; several when it is a tuple
    trips: int | None = None  # iterations of a `while`, None when the text does not say

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)

    @property
    def traffic(self) -> int:
        return sum(shape.traffic for shape in self.shapes)

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from: `jit(step)/.../dot_general`, empty when XLA made it up."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    @property
    def target(self) -> str:
        """Target of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def called(self) -> list[str]:
        """Computations that run when it runs, a loop's body included; reducers of reductions are not."""
        if self.opcode == "while":
            return re.findall(r"body=%?([\w.\-]+)", self.attributes)
        if self.opcode == "call":
            return re.findall(r"to_apply=%?([\w.\-]+)", self.attributes)
        if self.opcode in ("fusion", "fusion-start", "async-start", "custom-call"):
            listed = re.findall(r"called_computations=\{([^}]*)\}", self.attributes)
            return re.findall(r"calls=%?([\w.\-]+)", self.attributes) + [
                n for part in listed for n in _NAME.findall(part)
            ]
        if self.opcode == "conditional":
            found = re.findall(r"branch_computations=\{([^}]*)\}", self.attributes)
            names = [n for part in found for n in _NAME.findall(part)]
            return names + re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", self.attributes)
        return []


@dataclass
class Computation:
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def __post_init__(self):
        self.by_name: dict[str, Instruction] = {}

    @property
    def root(self) -> Instruction:
        return next((i for i in self.instructions if i.is_root), self.instructions[-1])

    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        return users


@dataclass
class Module:
    computations: dict[str, Computation]
    entry: str
    is_scheduled: bool

    def executions(self) -> dict[str, int]:
        """How often each computation runs per run of the module; loops of unknown length count once."""
        counts: dict[str, int] = {}

        def visit(name: str, times: int) -> None:
            counts[name] = counts.get(name, 0) + times
            for instruction in self.computations[name].instructions:
                inner = times * (instruction.trips or 1) if instruction.opcode == "while" else times
                for called in instruction.called():
                    visit(called, inner)

        visit(self.entry, 1)
        return counts

    def walk(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that runs, with how often it does."""
        for name, times in self.executions().items():
            computation = self.computations[name]
            for instruction in computation.instructions:
                yield computation, instruction, times

    def unknown_loops(self) -> list[str]:
        return [i.name for _, i, _ in self.walk() if i.opcode == "while" and i.trips is None]


def parse(text: str) -> Module:
    """Text of `compiled.as_text()` -> module.

    Raises: ValueError when the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            header = _HEADER.match(line) if not line.startswith("HloModule") else None
            if header:
                current = computations.setdefault(header.group(2), Computation(header.group(2)))
                entry = header.group(2) if header.group(1) else entry
        elif _END.fullmatch(line):
            current = None
        elif found := _INSTRUCTION.match(line):
            instruction = _instruction(bool(found.group(1)), found.group(2), found.group(3))
            current.instructions.append(instruction)
            current.by_name[instruction.name] = instruction
        elif current.instructions:  # attributes of a kernel may hold line breaks
            current.instructions[-1].attributes += line
    if not entry:
        raise ValueError("HLO text: no ENTRY computation")
    for computation in computations.values():
        for instruction in computation.instructions:
            if instruction.opcode == "while":
                instruction.trips = _trips(computations, computation, instruction)
    return Module(computations, entry, "is_scheduled=true" in text[:2000])


def _trips(computations: dict[str, Computation], outer: Computation, loop: Instruction) -> int | None:
    """Iterations of a `while`: as the GPU's and CPU's compilers note them, else (the TPU's compiler) from a condition
    `counter < constant` and a body that adds a constant to the counter, which starts with a constant, or with 0."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known.group(1))
    name = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    if name is None or name.group(1) not in computations:
        return None
    condition = computations[name.group(1)]
    test = condition.root
    if test.opcode != "compare" or "direction=LT" not in test.attributes:
        return None
    counter, limit = (condition.by_name[n] for n in test.operands)
    index = re.search(r"index=(\d+)", counter.attributes)
    end = _constant(limit)
    if counter.opcode != "get-tuple-element" or index is None or end is None:
        return None
    first = _element(outer, outer.by_name.get(loop.operands[0]), int(index.group(1)))
    body = computations[loop.called()[0]]
    last = _element(body, body.root, int(index.group(1)))
    if last is None or last.opcode != "add":
        return None
    step = next((c for c in (_constant(body.by_name[n]) for n in last.operands) if c is not None), 1)
    return -(-(end - ((_constant(first) if first else 0) or 0)) // step)


def _element(computation: Computation, value: Instruction | None, index: int) -> Instruction | None:
    """What a tuple holds at an index, copies looked through."""
    found = computation.by_name.get(value.operands[index]) if value and value.opcode == "tuple" else None
    while found is not None and found.opcode in ("copy", "bitcast"):
        found = computation.by_name.get(found.operands[0])
    return found


def _constant(instruction: Instruction) -> int | None:
    found = re.match(r"\s*(-?\d+)\b", instruction.attributes) if instruction.opcode == "constant" else None
    return int(found.group(1)) if found else None


def _instruction(is_root: bool, name: str, rest: str) -> Instruction:
    rest = _COMMENT.sub("", rest)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    result_type, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    opcode, inside = rest[:opening], rest[opening + 1 : closing]
    # Literals and parameter numbers have no %; operands do.
    operands = [] if opcode in ("constant", "parameter") else _NAME.findall(inside)
    attributes = rest[closing + 1 :]
    if opcode in ("parameter", "constant"):
        attributes = f" {inside}{attributes}"
    return Instruction(name, opcode, result_type, operands, attributes, is_root, shapes(result_type))


def shapes(type_text: str) -> list[Shape]:
    """All array shapes in a type, tuples flattened: `(f32[2,3]{1,0}, s32[])` -> two."""
    return [
        Shape(d, tuple(int(n.strip("<= ")) for n in dims.split(",") if n.strip()), _is_on_chip(layout))
        for d, dims, layout in _SHAPE.findall(type_text)
    ]


def _is_on_chip(layout: str) -> bool:
    """Memory space 1 of a tiled layout; a GPU's layouts have no tiles, and its space 1 is memory like all of it."""
    return "S(1)" in layout and "T(" in layout


def elements(type_text: str) -> list[str]:
    """Types of a tuple's elements, one level deep."""
    if not type_text.startswith("("):
        return [type_text]
    parts, depth, start = [], 0, 1
    for i, c in enumerate(type_text[:-1]):
        if c in "({[":
            depth += 1
        elif c in ")}]":
            depth -= 1
        elif c == "," and depth == 1:
            parts.append(type_text[start:i].strip())
            start = i + 1
    return [*parts, type_text[start:-1].strip()]


def _closing(text: str, opening: int) -> int:
    depth = 0
    for i in range(opening, len(text)):
        if text[i] == "(":
            depth += 1
        elif text[i] == ")":
            depth -= 1
            if depth == 0:
                return i
    raise ValueError(f"HLO text: unbalanced parentheses in {text[:120]!r}")
