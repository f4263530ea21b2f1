"""Metrics: exact, blind to padding, the same over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.training.metrics import Metrics, correct


def _rows(n, k=7, seed=0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(n, k)).astype(np.float32)
  labels = rng.integers(0, k, n).astype(np.int32)
  loss = rng.gamma(2.0, size=n).astype(np.float32)
  return logits, labels, loss


def _metrics(*arrays):
  return Metrics.from_batch(*map(jnp.asarray, arrays))


def test_thirty_thousand_images_are_counted_exactly():
  logits, labels, loss = _rows(30_000)

  def body(metrics, batch):
    return metrics.add(Metrics.from_batch(*batch)), None

  batches = (
    logits.reshape(300, 100, 7),
    labels.reshape(300, 100),
    loss.reshape(300, 100),
  )
  metrics, _ = jax.jit(lambda b: jax.lax.scan(body, Metrics.zeros(), b))(
    batches
  )
  hits = int((logits.argmax(axis=1) == labels).sum())
  assert int(metrics.correct) == hits
  assert int(metrics.count) == 30_000
  assert metrics.compute()["accuracy"] == hits / 30_000
  expected = loss.mean(dtype=np.float64)
  assert metrics.compute()["loss"] == pytest.approx(expected, rel=1e-5)


def test_counts_go_on_where_float32_would_stand_still():
  many = Metrics(
    loss=jnp.float32(0), correct=jnp.int32(2**24), count=jnp.int32(2**24)
  )
  one = _metrics(jnp.eye(1), jnp.zeros(1, jnp.int32), jnp.zeros(1))
  metrics = many.add(one)
  assert (int(metrics.correct), int(metrics.count)) == (2**24 + 1, 2**24 + 1)


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masked_examples_do_not_count(dtype):
  logits, labels, loss = _rows(10)
  expected = _metrics(logits[:6], labels[:6], loss[:6])
  logits[6:], loss[6:] = np.nan, np.nan
  logits[8:] = np.eye(7)[labels[8:]]  # would be correct
  mask = (np.arange(10) < 6).astype(dtype)
  metrics = _metrics(logits, labels, loss, mask)
  assert metrics.compute() == pytest.approx(expected.compute())
  assert int(metrics.count) == 6
  assert int(metrics.correct) == int(expected.correct)


def test_accuracy_of_votes_is_that_of_their_argmax():
  votes = jnp.array([[0.4, 0.6, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
  logits = jnp.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
  assert correct(logits, votes).tolist() == [True, True, False]
  labels = jnp.array([1, 0, 2])
  assert correct(logits, labels).tolist() == [True, True, False]


def test_psum_over_devices_equals_one():
  logits, labels, loss = _rows(16)
  mask = np.arange(16) < 13
  expected = _metrics(logits, labels, loss, mask)

  def on_device(*share):
    return Metrics.from_batch(*share).psum("devices")

  shares = (
    logits.reshape(4, 4, 7),
    labels.reshape(4, 4),
    loss.reshape(4, 4),
    mask.reshape(4, 4),
  )
  metrics = jax.vmap(on_device, axis_name="devices")(*shares)
  for device in range(4):
    one = jax.tree.map(lambda x, i=device: x[i], metrics)
    assert one.compute() == pytest.approx(expected.compute())
    assert int(one.correct) == int(expected.correct)
    assert int(one.count) == 13


def test_dtypes_stay_through_accumulation():
  metrics = Metrics.zeros().add(_metrics(*_rows(4)))
  dtypes = (metrics.loss.dtype, metrics.correct.dtype, metrics.count.dtype)
  assert dtypes == (jnp.float32, jnp.int32, jnp.int32)


def test_nothing_has_no_mean():
  with pytest.raises(ValueError, match="no image was counted"):
    Metrics.zeros().compute()
