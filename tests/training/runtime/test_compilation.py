"""Programs are compiled in threads, and waited for."""

import re
import threading

import jax
import jax.numpy as jnp
import pytest

from fer_jax.training.runtime.compilation import ParallelCompiler


def lowered(fn, *args):
  return jax.jit(fn).lower(*args)


def test_programs_compute_what_was_traced():
  shown: list[str] = []
  x = jnp.arange(3.0)
  with ParallelCompiler(shown.append) as compiler:
    double = compiler.add("double", lowered(lambda x: 2 * x, x))
    total = compiler.add("sum", lowered(jnp.sum, x))
    compiler.wait()
    assert double.done() and total.done()
    line = compiler.describe()
  assert double.result()(x).tolist() == [0, 2, 4]
  assert float(total.result()(x)) == 3
  assert shown[0].startswith("compiling double: ")
  assert line.startswith("compiled in ") and re.search(r"double \d", line)


@pytest.mark.parametrize(
  ("backend", "together"), [("cpu", False), ("gpu", False), ("tpu", True)]
)
def test_only_tpus_compile_at_the_same_time(monkeypatch, backend, together):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  both = threading.Barrier(2)

  class Meeting:
    def compile(self):
      """Returns whether another program is compiled meanwhile."""
      try:
        both.wait(timeout=30 if together else 0.1)
      except threading.BrokenBarrierError:
        return False
      return True

  with ParallelCompiler() as compiler:
    futures = [compiler.add(name, Meeting()) for name in "ab"]  # type: ignore[arg-type]
    assert [future.result() for future in futures] == [together] * 2


def test_an_error_of_the_compiler_is_raised():
  class Broken:
    def compile(self):
      """Fails as a compiler without memory does."""
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

  with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
    with ParallelCompiler() as compiler:
      future = compiler.add("step", Broken())  # type: ignore[arg-type]
      compiler.wait()
      future.result()
