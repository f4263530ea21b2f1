"""Values of configuration fields: read from text, converted to their types."""

import ast
import os
import types
import typing
from typing import Any

import numpy as np

from fer_jax.errors import UserError

_KINDS = {
  bool: "true or false",
  int: "an integer",
  float: "a number",
  str: "a string",
  tuple: "a tuple",
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def kind_of(annotation: Any, default_value: Any) -> type:
  """Returns the type that values of an annotated option have."""
  origin = typing.get_origin(annotation)
  if origin in (typing.Union, types.UnionType):
    choices = typing.get_args(annotation)
    kinds = [choice for choice in choices if choice is not type(None)]
    return kind_of(kinds[0], default_value)
  if annotation in _KINDS:
    return annotation
  if isinstance(origin, type) and not issubclass(origin, str):
    return tuple  # tuple[int, ...], Sequence[str]
  return type(default_value)


def typed(field: str, value: Any, kind: type) -> Any:
  """Returns a value as its field's type.

  Scalars and arrays of NumPy and paths are accepted where they fit.

  Raises:
    UserError: it has another type.
  """
  value = builtin(value)
  if kind is float and type(value) is int:
    return float(value)
  if kind is tuple and isinstance(value, list | tuple | np.ndarray):
    return tuple(map(builtin, value))
  if kind not in _KINDS or type(value) is kind:
    return value
  raise UserError(f"{field}={value!r} must be {_KINDS[kind]}")


def parse(field: str, text: str, kind: type) -> Any:
  """Returns the value that a text stands for."""
  if kind is str:
    return text
  try:
    if kind is bool:
      return _TRUTH[text.lower()]
    if kind in (int, float):
      return kind(text)
    value = ast.literal_eval(text if text.strip() else "()")
  except (KeyError, ValueError, SyntaxError):
    value = text
  if kind is tuple and not isinstance(value, tuple | list | str):
    value = (value,)
  return typed(field, value, kind)


def builtin(value: Any) -> Any:
  """Returns a scalar of NumPy or a path as Python's own type.

  >>> builtin(np.float64(0.5)), builtin("a")
  (0.5, 'a')
  """
  if isinstance(value, np.generic):
    return value.item()
  return os.fspath(value) if isinstance(value, os.PathLike) else value
