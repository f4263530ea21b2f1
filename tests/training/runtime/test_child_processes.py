"""Functions called in processes of their own."""

from fer_jax.errors import UserError
from fer_jax.training.runtime import child_processes


def fail(length: int) -> None:
  """Fails with a message of so many characters."""
  raise UserError("x" * length)


def test_a_failure_of_any_length_comes_back():
  ends = child_processes.run_all(fail, [(10,), (1_000_000,)], 2)
  assert ends[0].failure == "x" * 10
  assert set(ends[1].failure) == {"x"} and len(ends[1].failure) < 10_000
