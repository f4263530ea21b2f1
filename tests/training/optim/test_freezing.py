"""Frozen parameters do not change, cost nothing, and are unfrozen in time."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from flax import linen as nn
from flax.traverse_util import flatten_dict

from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.models import create
from fer_jax.models.layer_groups import layer_groups, match
from fer_jax.ops import dispatch
from fer_jax.training import train_loop
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.logging import metric_writer, progress
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import freezing, optimizers
from fer_jax.training.runtime.signals import Interrupted
from fer_jax.training.train_state import TrainState

pytestmark = pytest.mark.usefixtures("tiny_model")


def flat(tree):
  return {k: np.asarray(v) for k, v in flatten_dict(tree, sep="/").items()}


def stepped(config, num_steps=1):
  """The parts of a run, its first state and that after some steps."""
  parts = create_experiment(config)
  before = parts.init_state()
  train = parts.dataset.split("train").arrays()
  rows = slice(0, tiny_run.BATCH_SIZE)
  batch = {name: jnp.asarray(train[name][rows]) for name in ("image", "target")}
  step = jax.jit(parts.first_train_step.__call__)
  state = before
  for _ in range(num_steps):
    state, _ = step(state, Metrics.zeros(), {}, batch, parts.inputs)
  return parts, before, state


def num_bytes(tree):
  return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ("model", "groups"),
  [
    ("resnet50", "conv1 layer1 layer2 layer3 layer4 fc"),
    ("bi_resnet_ri", "conv1 layer1 layer2 layer3 layer4 layer5 head"),
    ("leaky_cnn", "conv1 conv2 conv3 fc1 fc2"),
    ("alexnet", "conv1 conv2 conv3 conv4 conv5 fc1 fc2 fc3"),
  ],
)
def test_groups_go_from_the_image_to_the_logits(model, groups):
  found = layer_groups(create(model, num_classes=7), (48, 48, 1))
  assert list(found) == groups.split()
  every = [path for paths in found.values() for path in paths]
  assert len(every) == len(set(every))
  assert match("backbone", found, "x") == set(every) - set(
    found[groups.split()[-1]]
  )


class Unnamed(nn.Module):
  """A network whose layers have Flax's own names."""

  convolutions: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    """Returns logits."""
    for _ in range(2 if self.convolutions else 0):
      x = nn.Conv(4, (3, 3))(x)
    x = x.reshape(x.shape[0], -1)
    for features in (8, 7) if self.convolutions else (7,):
      x = nn.Dense(features)(x)
    return x


def test_layers_without_names_are_groups():
  groups = layer_groups(Unnamed(), (8, 8, 1))
  assert list(groups) == ["Conv_0", "Conv_1", "Dense_0", "Dense_1"]
  config = default.get_config()
  config.freeze.patterns = "backbone"
  found = freezing.create(config.freeze, groups, num_epochs=5)
  assert found.groups == ("Conv_0", "Conv_1", "Dense_0")
  head_alone = layer_groups(Unnamed(convolutions=False), (8, 8, 1))
  with pytest.raises(UserError, match="no parameter matches 'backbone'"):
    freezing.create(config.freeze, head_alone, num_epochs=5)


def test_patterns_are_groups_beginnings_and_globs():
  groups = layer_groups(
    create("bi_resnet_alternated", num_classes=7), (48, 48, 1)
  )
  assert "bn1/scale" in match("conv1", groups, "x")
  one = match("layer1", groups, "x")
  assert one and not any(path.startswith("layer10") for path in one)
  assert match("layer1_0", groups, "x") == one
  norms = match("*/*bn*", groups, "x")
  assert {path.split("/")[-1] for path in norms} == {"scale", "bias"}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"patterns": "layer9"}, "'layer9': the groups are conv1, layer1, fc"),
    ({"patterns": "conv1,layer1,fc"}, "freezes the whole model"),
    ({"unfreeze_epochs": (1,)}, "at most 0 epochs"),
    ({"patterns": "conv1", "unfreeze_epochs": (2,)}, "from 1 to 1"),
    ({"patterns": "backbone", "unfreeze_epochs": (1, 1)}, "increasing"),
  ],
)
def test_a_wrong_field_is_said(prepared, fields, message):
  fields = {f"freeze__{name}": value for name, value in fields.items()}
  with pytest.raises(UserError, match=message):
    create_experiment(tiny_run.config(prepared, **fields))


@pytest.mark.parametrize("text", ["fc", "fc:", "fc:0", ":2", "fc:-1", "fc:x"])
def test_wrong_multipliers_are_said(prepared, text):
  with pytest.raises(UserError, match="lr_multipliers.*layer1:0.1,fc:10"):
    create_experiment(tiny_run.config(prepared, optimizer__lr_multipliers=text))


def test_multipliers_of_unknown_layers_are_said(prepared):
  config = tiny_run.config(prepared, optimizer__lr_multipliers="layer9:2")
  with pytest.raises(UserError, match="lr_multipliers.*'layer9'.*conv1"):
    create_experiment(config)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_what_is_frozen_stays_to_the_last_bit(prepared, name):
  config = tiny_run.config(
    prepared,
    freeze__patterns="conv1,layer1_0/conv1,layer1_0/bn1",
    optimizer__name=name,
    optimizer__weight_decay=0.1,
    ema_decay=0.9,
  )
  _, before, after = stepped(config, 2)
  frozen = {"conv1/", "bn1/", "layer1_0/conv1/", "layer1_0/bn1/"}
  for variables in (TrainState.variables, TrainState.eval_variables):
    for collection in ("params", "batch_stats"):
      old, new = (flat(variables(s)[collection]) for s in (before, after))
      assert old.keys() == new.keys()
      for path in old:
        same = np.array_equal(old[path], new[path])
        assert same == path.startswith(tuple(frozen)), (collection, path)


def test_a_frozen_norm_runs_as_in_evaluation(prepared):
  config = tiny_run.config(prepared, freeze__patterns="backbone")
  parts = create_experiment(config)
  state = parts.init_state()
  images = jax.random.normal(jax.random.key(3), (4, 24, 24, 1))
  variables = state.eval_variables()
  with freezing.fixed_norms(parts.first_train_step.frozen):
    logits, updated = parts.model.apply(
      variables, images, train=True, mutable=["batch_stats"]
    )
  held = parts.model.apply(variables, images, train=False)
  np.testing.assert_array_equal(logits, held)
  jax.tree.map(
    np.testing.assert_array_equal, updated["batch_stats"], state.batch_stats
  )


def test_what_is_frozen_has_no_moments_and_no_backward_pass(prepared):
  flops, moments = {}, {}
  for patterns in ("", "backbone"):
    config = tiny_run.config(prepared, freeze__patterns=patterns)
    parts = create_experiment(config)
    state = parts.state_shapes()
    batch = {
      "image": jax.ShapeDtypeStruct((8, 48, 48, 1), np.uint8),
      "target": jax.ShapeDtypeStruct((8,), np.int32),
    }
    sums = jax.eval_shape(Metrics.zeros)
    with dispatch.use_xla():  # The work of kernels would not be counted.
      lowered = jax.jit(parts.first_train_step.__call__).lower(
        state, sums, {}, batch, parts.inputs
      )
    costs = lowered.compile().cost_analysis()
    assert costs
    flops[patterns] = costs["flops"]
    moments[patterns] = sum(
      x.size for x in jax.tree.leaves(state.opt_state) if x.ndim
    )
    if patterns == "backbone":
      assert moments[patterns] == 2 * (64 * 7 + 7)  # of the head alone
  # Forward, the gradients of inputs and those of kernels cost the same each.
  assert flops["backbone"] < 0.45 * flops[""]


def test_multipliers_scale_the_update(prepared):
  config = tiny_run.config(
    prepared,
    optimizer__name="sgd",
    optimizer__learning_rate=0.5,
    optimizer__lr_multipliers="conv1:0.5, fc:10,fc/bias:3",
  )
  parts = create_experiment(config)
  params = parts.state_shapes().params
  ones = jax.tree.map(lambda p: np.ones(p.shape, np.float32), params)
  optimizer = parts.first_train_step.optimizer(parts.inputs)
  updates, state = optimizer.update(ones, optimizer.init(ones), ones)
  factors = {"conv1": 0.5, "bn1": 0.5, "fc": 10.0, "layer1_0": 1.0}
  for path, update in flat(updates).items():
    factor = 3.0 if path == "fc/bias" else factors[path.split("/")[0]]
    np.testing.assert_allclose(update, -0.5 * factor, rtol=1e-6)
  assert float(optimizers.learning_rate(state)) == 0.5


GRADUAL = {
  "freeze__patterns": "backbone",
  "freeze__unfreeze_epochs": (1, 2),
  "num_epochs": 3,
  "ema_decay": 0.9,
}


def test_groups_are_unfrozen_from_the_head_down(tmp_path, prepared, capsys):
  config = tiny_run.config(prepared, **GRADUAL)
  first = flat(create_experiment(config).init_state().params)
  seen = []

  save = train_loop.save_checkpoint

  def note(run, state):
    now = flat(run.experiment.parallel.fetch(state.params))
    seen.append({p.split("/")[0] for p in now if (now[p] != first[p]).any()})
    save(run, state)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train_loop, "save_checkpoint", note)
    train_loop.train_and_evaluate(config, tmp_path)
  assert seen == [
    {"fc"},
    {"fc", "layer1_0"},
    {"fc", "layer1_0", "conv1", "bn1"},
  ]
  shown = capsys.readouterr().err
  assert (
    "frozen: conv1, layer1; to unfreeze: layer1 after epoch 1, conv1" in shown
  )
  assert "frozen: nothing" in shown
  state = tiny_run.final_state(config, tmp_path)
  counts = {
    unit: int(jax.tree.leaves(inner)[0])
    for node in jax.tree.leaves(
      state.opt_state, is_leaf=lambda x: hasattr(x, "inner_states")
    )
    if hasattr(node, "inner_states")
    for unit, inner in node.inner_states.items()
  }
  steps = tiny_run.STEPS_PER_EPOCH
  assert counts == {"always": 3 * steps, "layer1": 2 * steps, "conv1": steps}


# In the middle of an epoch after unfreezing, and right when it happens.
@pytest.mark.parametrize("steps", [8, 10])
def test_an_interrupted_run_unfreezes_exactly(tmp_path, prepared, steps):
  config = tiny_run.config(prepared, **GRADUAL)
  train_loop.train_and_evaluate(config, tmp_path / "whole")
  update, calls = progress.Progress.update, []

  def interrupt(self, count):
    update(self, count)
    calls.append(count)
    if len(calls) == steps:
      signal.raise_signal(signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(progress.Progress, "update", interrupt)
    with pytest.raises(Interrupted):
      train_loop.train_and_evaluate(config, tmp_path / "stopped")
  train_loop.train_and_evaluate(config, tmp_path / "stopped")
  jax.tree.map(
    np.testing.assert_array_equal,
    tiny_run.final_state(config, tmp_path / "whole"),
    tiny_run.final_state(config, tmp_path / "stopped"),
  )
  losses = [
    [
      r["loss"]
      for r in metric_writer.read(tmp_path / run)
      if r["kind"] == "train"
    ]
    for run in ("whole", "stopped")
  ]
  assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["sgd", "adafactor"])
def test_unfreezing_keeps_the_optimizer_state(prepared, name):
  config = tiny_run.config(
    prepared,
    optimizer__name=name,
    optimizer__accumulate_steps=2,
    optimizer__lr_multipliers="fc:2",
    **GRADUAL,
  )
  parts, _, state = stepped(config)
  unfrozen = parts.train_step(1).unfreeze(jax.device_get(state), parts.inputs)
  old = {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
  }
  new = {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(unfrozen.opt_state)
  }
  assert old.keys() < new.keys()
  for path in old:
    np.testing.assert_array_equal(old[path], new[path])
  again = parts.train_step(1).unfreeze(jax.device_get(unfrozen), parts.inputs)
  assert num_bytes(again) == num_bytes(unfrozen)
