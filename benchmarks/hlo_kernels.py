"""The kernels of a compiled GPU program, by what they do."""

import math
import re
from collections import Counter
from typing import NamedTuple

GROUPS = (
  "convolution",
  "matrix_product",
  "batch_norm_forward",
  "batch_norm_backward",
  "optimizer",
  "cast",
  "layout",
  "copy",
  "input",
  "other",
)
# Instructions that launch nothing.
_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "iota",
  "after-all",
  "partition-id",
}
# What XLA places before slices without reading more than they need.
_ELEMENTWISE = {"convert", "bitcast", "compare", "select"}
_PARTIAL = {"slice", "dynamic-slice", "gather"}
_ENTRY = "ENTRY"
_MOVES = {"transpose", "copy", "reverse", "slice", "reshape", "concatenate"}
_KEPT = {"compare", "select"}  # what keeps slices fusible (`flat_params`)
_NORM = re.compile(r"(?:.*_)?bn(?:\d+|_last)?")
_INSTRUCTION = re.compile(
  r"\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<opcode>[\w\-]+)\("
)


def count(hlo: str) -> dict[str, int]:
  """Counts the kernels of each group in a program's optimized HLO.

  Every instruction of the entry computation that is not free is one kernel.
  Its group follows from the instruction (library calls, copies), from what a
  fusion consists of (only casts and moves of data), else from the name of the
  layer or scope it was traced in; what has none of these is "other". A fusion
  has the name of its result: a ReLU fused into a norm counts as the norm.
  """
  parsed = _computations(hlo)
  groups = Counter(dict.fromkeys(GROUPS, 0))
  for instruction in parsed[_ENTRY].values():
    if instruction.opcode not in _FREE:
      groups[_group(instruction, parsed)] += 1
  return dict(groups)


def bytes_moved(hlo: str) -> int:
  """Sums the arrays that each kernel reads and writes.

  Of an operand that a fusion only slices or gathers from, the parts count.
  Caches are left out: an array that two kernels read counts twice.
  """
  parsed = _computations(hlo)
  entry = parsed[_ENTRY]
  total = 0
  for instruction in entry.values():
    if instruction.opcode in _FREE:
      continue
    total += instruction.size
    called = parsed.get(instruction.called, {})
    parts = [_part_read(called, i) for i in range(len(instruction.operands))]
    for operand, part in zip(instruction.operands, parts, strict=True):
      whole = entry[operand].size if operand in entry else 0
      total += whole if part is None else min(part, whole)
  return total


def launches(thunks: str) -> dict[str, int]:
  """Counts CUDA graphs, and what the host launches, graphs included.

  Args:
    thunks: XLA's dump `thunk_sequence_after_thunk_passes`; what is in a graph
      is indented.
  """
  top = [line for line in thunks.splitlines() if re.match(r"\d+: ", line)]
  graphs = sum("kCommandBuffer" in line for line in top)
  return {"cuda_graphs_used": graphs, "host_launches": len(top)}


class _Instruction(NamedTuple):
  """A line of HLO."""

  line: str
  opcode: str
  size: int
  operands: list[str]
  called: str


def _computations(hlo: str) -> dict[str, dict[str, _Instruction]]:
  """Parses a program: computations by name, their instructions by name."""
  found: dict[str, dict[str, _Instruction]] = {}
  body: dict[str, _Instruction] = {}
  for line in hlo.splitlines():
    header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
    if header:
      body = found[_ENTRY if header[1] else header[2]] = {}
    elif parts := _INSTRUCTION.match(line):
      called = re.search(r"calls=%?([\w.\-]+)", line)
      operands = line[parts.end() :].partition(")")[0]
      body[parts["name"]] = _Instruction(
        line,
        parts["opcode"],
        _size(parts["shape"]),
        re.findall(r"%([\w.\-]+)", operands),
        called[1] if called else "",
      )
  return found


def _size(shape: str) -> int:
  """Returns the bytes of an array or a tuple of arrays."""
  total = 0
  for bits, dims in re.findall(r"(pred|[a-z]+(?:\d+))\[([\d,]*)\]", shape):
    width = 8 if bits == "pred" else int(re.sub(r"\D", "", bits))
    total += math.prod(map(int, filter(None, dims.split(",")))) * width // 8
  return total


def _part_read(fused: dict[str, _Instruction], number: int) -> int | None:
  """Returns the bytes a fusion reads of an operand; None for all of it."""
  for name, instruction in fused.items():
    if f" parameter({number})" in instruction.line:
      parts: dict[str, int] = {}
      whole = _uses_whole(fused, name, parts)
      return None if whole or not parts else sum(parts.values())
  return None


def _uses_whole(
  fused: dict[str, _Instruction], name: str, parts: dict[str, int]
) -> bool:
  """Returns whether more than slices of a value are read.

  Args:
    fused: the instructions of a fusion, by name.
    name: of the value.
    parts: is filled with the bytes of each slice.
  """
  for key, user in fused.items():
    if name not in user.operands:
      continue
    if user.opcode in _PARTIAL:
      bounds = re.search(r"slice=\{[^}]*\}", user.line)
      parts[bounds[0] if bounds else key] = user.size
    elif user.opcode not in _ELEMENTWISE or _uses_whole(fused, key, parts):
      return True
  return False


def _group(
  instruction: _Instruction, parsed: dict[str, dict[str, _Instruction]]
) -> str:
  line, opcode = instruction.line, instruction.opcode
  if opcode == "custom-call":
    return "convolution" if "__cudnn$conv" in line else "matrix_product"
  if opcode == "copy":
    return "copy"
  work = {opcode}
  if instruction.called:
    fused = parsed[instruction.called].values()
    work = {part.opcode for part in fused} - _FREE - {"broadcast"}
  if "dot" in work:
    return "matrix_product"
  named = re.search(r'op_name="([^"]*)"', line)
  scopes = named[1].split("/") if named else []
  if "optimizer" in scopes:
    return "optimizer"
  if "slice" in work:
    work -= _KEPT
  if work and work <= _MOVES | {"convert", "pad"}:
    moved = work & {"transpose", "copy", "reverse", "pad", "concatenate"}
    return "cast" if "convert" in work and not moved else "layout"
  if any(_NORM.fullmatch(scope) for scope in scopes):
    backward = any("transpose(" in scope for scope in scopes)
    return "batch_norm_backward" if backward else "batch_norm_forward"
  return "input" if "input" in scopes else "other"
