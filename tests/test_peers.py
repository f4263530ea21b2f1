"""The peers' variants; those in PyTorch where it is installed."""

import numpy as np
import peer_variants
import peer_worker
import pytest

from fer_jax.errors import UserError


def variants(**given):
  flags = {
    "libraries": ["fer_jax", "pytorch"],
    "dtypes": ["float32"],
    "torch_dtypes": ["float32"],
    "modes": [],
    "layouts": ["channels_last"],
  }
  keys = peer_variants.chosen(**{**flags, **given})
  return [variant.split()[0] for library, variant, _ in keys if variant]


@pytest.fixture
def without_gpu(monkeypatch):
  monkeypatch.setattr(peer_variants, "has_nvidia_gpu", lambda: False)


def test_every_mode_that_can_run_is_chosen(monkeypatch, without_gpu):
  assert variants() == ["eager", "compiled"]
  monkeypatch.setattr(peer_variants, "has_nvidia_gpu", lambda: True)
  assert variants() == ["eager", "compiled", "reduce-overhead", "graph"]
  assert variants(modes=["graph", "eager"]) == ["graph", "eager"]
  assert variants(libraries=["fer_jax", "flax"]) == []


@pytest.mark.parametrize("mode", peer_variants.CUDA_MODES)
def test_a_mode_for_gpus_needs_one(mode, without_gpu):
  with pytest.raises(UserError, match=f"modes={mode} needs an NVIDIA GPU"):
    variants(modes=["eager", mode])


@pytest.fixture
def case(tmp_path):
  """A case of a small network, with weights of ours."""
  pytest.importorskip("torch")
  import peer_jax

  case = {
    "model": "leaky_cnn",
    "library": "fer_jax",
    "variant": "",
    "dtype": "float32",
    "batch_size": 8,
    "image_size": 32,
    "threads": 1,
    "weights": str(tmp_path / "weights"),
  }
  peer_jax.create(case)  # writes them
  return case | {"library": "pytorch", "variant": "eager channels_last"}


@pytest.mark.parametrize("layout", peer_variants.LAYOUTS)
def test_torch_trains_on_the_images_that_the_index_names(case, layout):
  import peer_torch
  import torch

  def trained(indexed):
    torch.manual_seed(0)  # of dropout
    peer = peer_torch.create(case | {"variant": f"eager {layout}"})
    images, labels, index = peer_worker.training_data(32, 8)
    if not indexed:  # the batch itself, as a dataset
      images, labels, index = images[index], labels[index], np.arange(8)
    batch = peer.gathered(torch.from_numpy(images), torch.from_numpy(index))
    assert batch.is_contiguous(memory_format=peer_torch.FORMATS[layout])
    peer.train_on(images, labels, index)
    for _ in range(2):
      peer.step()
    return batch.numpy(), peer.parameters()

  (batch, by_index), (same_batch, by_batch) = trained(True), trained(False)
  images, _, index = peer_worker.training_data(32, 8)
  expected = images[index].transpose(0, 3, 1, 2) / np.float32(255)
  np.testing.assert_array_equal(batch, expected)
  np.testing.assert_array_equal(same_batch, expected)
  for one, other in zip(by_index, by_batch, strict=True):
    np.testing.assert_array_equal(one, other)
  start = peer_torch.create(case).parameters()
  assert any(
    not np.array_equal(a, b) for a, b in zip(start, by_index, strict=True)
  )


@pytest.mark.parametrize("mode", peer_variants.CUDA_MODES)
def test_torch_says_that_it_has_no_gpu(case, mode):
  import peer_torch
  import torch

  if torch.cuda.is_available():
    pytest.skip("there is one")
  with pytest.raises(UserError, match=f"no CUDA device, which mode {mode}"):
    peer_torch.create(case | {"variant": f"{mode} contiguous"})
