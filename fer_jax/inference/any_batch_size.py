"""A batch size that is left open while a model is traced."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax.export

from fer_jax.errors import UserError


@contextlib.contextmanager
def any_batch_size() -> Iterator[Any]:
  """Yields a dimension for the shapes that a model is traced with.

  Raises:
    UserError: the model computes with the batch size as with a number.
  """
  (batch,) = jax.export.symbolic_shape("b")
  try:
    yield batch
  except Exception as e:
    # JAX has several classes of the second name, not all of them public.
    names = ("_DimExpr", "InconclusiveDimensionOperation")
    if not any(name in f"{type(e).__name__} {e}" for name in names):
      raise
    raise UserError(
      "the model cannot be exported for any number of images: it must take the"
      " batch size from x.shape[0], without len(), int() or comparisons"
    ) from e
