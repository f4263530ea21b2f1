"""The first lines of a run."""

import types

import jax
import pytest

from fer_jax.ops import cpu_library, dispatch
from fer_jax.training.logging import summary

T4, H100, MI300 = (
  types.SimpleNamespace(platform="gpu", compute_capability=capability)
  for capability in ("7.5", "9.0", "gfx942")
)


@pytest.mark.parametrize(
  ("dtype", "device", "converts"),
  [
    ("bfloat16", T4, True),
    ("float32", T4, False),
    ("bfloat16", H100, False),
    ("bfloat16", MI300, False),
  ],
)
def test_a_gpu_without_bfloat16_computes_in_float32(
  dtype, device, converts, monkeypatch
):
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  monkeypatch.setattr(jax, "default_backend", lambda: device.platform)
  said = summary._computation(dtype, device)
  assert said.startswith(" computed as float32: this GPU") == converts
  computed = "float32" if converts else dtype
  assert dispatch.compute_dtype(dtype) == computed
  with dispatch.tracing_for("gpu"):  # for another GPU than this one
    assert dispatch.compute_dtype(dtype) == dtype


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_says_how_it_computes_bfloat16(has, monkeypatch):
  monkeypatch.setattr(cpu_library, "multiplies_bfloat16", lambda: has)
  said = summary._computation("bfloat16", jax.devices()[0])
  assert ("products" in said) == has
  assert ("computed as float32" in said) != has
