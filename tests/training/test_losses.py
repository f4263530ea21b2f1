"""Cross-entropy, targets, weights, and the mean over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.training import losses


def _reference(logits, targets):
  """Cross-entropy of each example in float64, from its definition."""
  z = np.asarray(logits, np.float64)
  p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
  return -(np.asarray(targets, np.float64) * np.log(p)).sum(axis=1)


def _batch(rows=12, k=7, seed=0):
  rng = np.random.default_rng(seed)
  logits = jnp.asarray(rng.normal(size=(rows, k)) * 3, jnp.float32)
  labels = jnp.asarray(rng.integers(0, k, rows), jnp.int32)
  return logits, labels


def test_uniform_logits_cost_log_k():
  targets = losses.one_hot_targets(jnp.array([0, 3]), 7)
  loss = losses.per_example(jnp.zeros((2, 7)), targets)
  np.testing.assert_allclose(loss, np.log(7), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_targets_match_the_definition(smoothing):
  logits, labels = _batch()
  targets = losses.one_hot_targets(labels, 7, smoothing)
  np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
  expected = _reference(
    logits, np.eye(7)[labels] * (1 - smoothing) + smoothing / 7
  )
  np.testing.assert_allclose(
    losses.per_example(logits, targets), expected, rtol=2e-5
  )


def test_soft_targets_match_the_definition():
  logits, _ = _batch()
  votes = np.random.default_rng(1).dirichlet(np.ones(7), 12)
  targets = losses.one_hot_targets(jnp.asarray(votes, jnp.float32), 7, 0.2)
  expected = _reference(logits, votes * 0.8 + 0.2 / 7)
  np.testing.assert_allclose(
    losses.per_example(logits, targets), expected, rtol=2e-5
  )


def test_half_precision_logits_are_cast_before_the_softmax():
  logits, labels = _batch()
  half = logits.astype(jnp.bfloat16)
  targets = losses.one_hot_targets(labels, 7)
  loss = losses.per_example(half, targets)
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, _reference(half, targets), rtol=2e-5)


def test_extreme_logits_stay_finite():
  targets = losses.one_hot_targets(jnp.array([1]), 2)
  loss = losses.per_example(jnp.array([[1e4, -1e4]]), targets)
  np.testing.assert_allclose(loss, [2e4])


def test_distributions_of_other_classes_are_refused():
  with pytest.raises(ValueError, match="8 classes where 7"):
    losses.one_hot_targets(jnp.ones((2, 8)), 7)


def test_balanced_weights_closed_form():
  labels = np.array([0] * 6 + [1] * 3 + [3] * 1)
  weights = losses.balanced_class_weights(labels, 4)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(weights, [10 / 24, 10 / 12, 0, 10 / 4], rtol=1e-6)
  # Every class that is there counts alike.
  totals = np.bincount(labels, weights[labels], minlength=4)
  np.testing.assert_allclose(totals, [2.5, 2.5, 0, 2.5], rtol=1e-6)


def test_balanced_weights_of_votes_generalise_those_of_labels():
  labels = np.array([0, 0, 1, 2, 2, 2])
  np.testing.assert_allclose(
    losses.balanced_class_weights(np.eye(4, dtype=np.float32)[labels], 4),
    losses.balanced_class_weights(labels, 4),
  )
  votes = np.array([[0.5, 0.5], [1.0, 0.0]])
  np.testing.assert_allclose(
    losses.balanced_class_weights(votes, 2), [2 / 3, 2], rtol=1e-6
  )


@pytest.mark.parametrize("targets", [[0, 4], [-1, 0]])
def test_balanced_weights_refuse_labels_out_of_range(targets):
  with pytest.raises(ValueError, match=r"where 0 \.\. 3"):
    losses.balanced_class_weights(np.array(targets), 4)


def test_balanced_weights_refuse_distributions_of_other_classes():
  with pytest.raises(ValueError, match="3 classes where 4"):
    losses.balanced_class_weights(np.ones((2, 3)), 4)


def test_example_weights():
  class_weights = jnp.array([2.0, 1.0, 0.0])
  labels = jnp.array([0, 2, 1])
  votes = jnp.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
  weigh = losses.example_weights
  np.testing.assert_allclose(weigh(labels), [1, 1, 1])
  np.testing.assert_allclose(weigh(labels, class_weights), [2, 0, 1])
  np.testing.assert_allclose(weigh(votes, class_weights), [1.5, 0.2, 2])


def test_weighted_mean_is_over_the_weights():
  logits, labels = _batch()
  targets = losses.one_hot_targets(labels, 7)
  weights = losses.example_weights(labels, jnp.arange(1.0, 8.0))
  mean = losses.weighted_mean(
    losses.per_example(logits, targets, weights), weights
  )
  expected = np.average(_reference(logits, targets), weights=weights)
  np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_a_masked_row_gives_no_loss_and_no_gradient_even_if_not_finite():
  logits, labels = _batch(rows=3)
  logits = logits.at[2].set(jnp.nan)
  weights = jnp.array([1.0, 1.0, 0.0])

  def loss_fn(logits):
    targets = losses.one_hot_targets(labels, 7)
    rows = losses.per_example(logits, targets, weights)
    return losses.weighted_mean(rows, weights)

  loss, grad = jax.value_and_grad(loss_fn)(logits)
  expected, expected_grad = jax.value_and_grad(
    lambda z: losses.per_example(
      z, losses.one_hot_targets(labels[:2], 7)
    ).mean()
  )(logits[:2])
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  np.testing.assert_allclose(grad[:2], expected_grad, rtol=1e-5)
  np.testing.assert_array_equal(grad[2], 0)


def test_a_batch_that_weighs_nothing_costs_nothing():
  zeros = jnp.zeros(4)
  assert losses.weighted_mean(zeros, zeros) == 0


def test_devices_with_unequal_weights_give_the_gradient_of_one_device():
  """The last device has one unmasked example; class weights differ."""
  logits, labels = _batch(rows=12)
  x = jnp.asarray(np.random.default_rng(2).normal(size=(12, 5)), jnp.float32)
  class_weights = losses.balanced_class_weights(np.asarray(labels), 7)
  mask = jnp.arange(12) < 10

  def loss_fn(kernel, x, labels, mask, axis_name=None):
    targets = losses.one_hot_targets(labels, 7)
    weights = losses.example_weights(labels, jnp.asarray(class_weights)) * mask
    rows = losses.per_example(x @ kernel, targets, weights)
    return losses.weighted_mean(rows, weights, axis_name)

  def on_device(kernel, x, labels, mask):
    value_and_grad = jax.value_and_grad(loss_fn)
    parts = value_and_grad(kernel, x, labels, mask, "devices")
    return jax.lax.pmean(parts, "devices")

  kernel = jnp.asarray(
    np.random.default_rng(3).normal(size=(5, 7)), jnp.float32
  )
  expected, expected_grad = jax.value_and_grad(loss_fn)(kernel, x, labels, mask)
  shares = (x.reshape(4, 3, 5), labels.reshape(4, 3), mask.reshape(4, 3))
  loss, grad = jax.vmap(
    on_device, in_axes=(None, 0, 0, 0), axis_name="devices"
  )(kernel, *shares)
  np.testing.assert_allclose(loss, np.full(4, expected), rtol=1e-6)
  np.testing.assert_allclose(grad[0], expected_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_check_names_the_smoothing(smoothing):
  config = default.get_config().loss
  losses.check(config)
  config.label_smoothing = smoothing
  with pytest.raises(UserError, match="loss.label_smoothing=.* must"):
    losses.check(config)


def test_check_names_the_class_weights():
  config = default.get_config().loss
  config.class_weights = "inverse"
  with pytest.raises(
    UserError, match="loss.class_weights 'inverse'.*balanced, none"
  ):
    losses.check(config)


def test_sigmoid_output_is_renormalised():
  logits = jnp.array([[0.3, -1.2, 2.0]])
  sigmoids = 1 / (1 + np.exp(-np.asarray(logits)))
  np.testing.assert_allclose(
    jax.nn.softmax(losses.to_output(logits, "sigmoid")),
    sigmoids / sigmoids.sum(),
    rtol=1e-6,
  )
  assert losses.to_output(logits, "softmax") is logits
  half = losses.to_output(logits.astype(jnp.bfloat16), "softmax")
  assert half.dtype == jnp.float32


def test_of_several_targets_the_likeliest_counts():
  logits = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]))
  targets = jnp.array([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
  loss = losses.per_example(logits, targets, name="multi_target")
  np.testing.assert_allclose(loss, -np.log([0.3, 0.3]), rtol=1e-6)

  def total(z):
    return losses.per_example(z, targets, name="multi_target").sum()

  gradient = jax.grad(total)(logits)
  # softmax minus the one-hot of the class that counted.
  np.testing.assert_allclose(
    gradient, [[0.5, -0.7, 0.2], [0.1, 0.6, -0.7]], atol=1e-6
  )


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("name", "hinge", "loss.name 'hinge': choose one of cross_entropy, multi"),
    ("output", "relu", "loss.output 'relu': choose one of sigmoid, softmax"),
    ("label_smoothing", 0.1, "label_smoothing=0.1 must be 0 with"),
  ],
)
def test_wrong_losses_are_named(field, value, message):
  config = default.get_config().loss
  config.name = "multi_target"
  config[field] = value
  with pytest.raises(UserError, match=message):
    losses.check(config)
