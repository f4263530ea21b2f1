"""The first lines of a run."""

import types

import jax
import pytest

from fer_jax.ops import cpu_library
from fer_jax.training.logging import summary

T4 = types.SimpleNamespace(device_kind="Tesla T4", compute_capability="7.5")
H100 = types.SimpleNamespace(device_kind="H100", compute_capability="9.0")
MI300 = types.SimpleNamespace(device_kind="MI300X", compute_capability="gfx942")


@pytest.mark.parametrize(
  ("dtype", "device", "warns"),
  [
    ("bfloat16", T4, True),
    ("float32", T4, False),
    ("bfloat16", H100, False),
    ("bfloat16", MI300, False),
    ("bfloat16", jax.devices("cpu")[0], False),
  ],
)
def test_a_gpu_without_bfloat16_is_told(dtype, device, warns):
  lines = summary.bfloat16_warnings(dtype, device)
  assert len(lines) == warns
  if warns:
    assert "Tesla T4 (compute capability 7.5)" in lines[0]
    assert "use dtype=float32" in lines[0]


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_says_how_it_computes_bfloat16(has, monkeypatch):
  monkeypatch.setattr(cpu_library, "multiplies_bfloat16", lambda: has)
  said = summary._kernels("bfloat16")
  assert ("products" in said) == has
  assert ("computed as float32" in said) != has
