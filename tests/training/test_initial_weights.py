"""Initial weights: which are used, converted, reinitialized or refused."""

import contextlib
import dataclasses
import functools
import hashlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_run
import trained_run
from flax.traverse_util import flatten_dict

from fer_jax import config as configs
from fer_jax import models, recipes
from fer_jax.errors import UserError
from fer_jax.models import create, resnet
from fer_jax.pretrained import (
  conversion,
  converted_weights,
  download,
  released,
)
from fer_jax.pretrained.schemes import SCHEMES
from fer_jax.training import initial_weights, train_loop
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.logging import metric_writer

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def source(trained_workdir):
  return trained_workdir


def config(source, **fields):
  prepared = trained_run.folder() / "prepared"
  return tiny_run.config(prepared, init_from=str(source), **fields)


@functools.cache
def best():
  with contextlib.closing(Checkpoints(trained_run.workdir())) as checkpoints:
    variables, _ = checkpoints.restore_variables("best")
  return flat(variables)


def flat(variables):
  paths = flatten_dict(variables, sep="/")
  return {path: np.asarray(leaf) for path, leaf in paths.items()}


def described(parts):
  weights = parts.read_initial_weights()
  assert weights
  return weights.description


def first_state(parts):
  return parts.init_state(parts.read_initial_weights())


def of_state(state):
  return flat({"params": state.params, "batch_stats": state.batch_stats})


def test_a_run_starts_from_the_best_epoch_of_another(source):
  parts = create_experiment(config(source, ema_decay=0.9))
  state = first_state(parts)
  jax.tree.map(np.testing.assert_array_equal, of_state(state), best())
  jax.tree.map(np.testing.assert_array_equal, state.ema, state.variables())
  assert described(parts) == f"initial weights: {source} (tiny)"


def test_a_head_of_other_classes_is_reinitialized(source):
  parts = create_experiment(config(source, dataset__classes="b,a,g"))
  fresh, state = of_state(parts.init_state()), of_state(first_state(parts))
  for path, array in state.items():
    expected = fresh if path.startswith("params/fc/") else best()
    np.testing.assert_array_equal(array, expected[path])
  assert "; fc is reinitialized (3 classes, not 7)" in described(parts)


def test_a_head_of_as_many_other_classes_is_too(source):
  parts = create_experiment(config(source))
  weights = initial_weights.read(str(source))
  names = tuple("bacdefg")
  start = initial_weights.fit(weights, parts.model, parts.config, names)
  assert start.arrays.keys() == {
    path for path in best() if not path.startswith("params/fc/")
  }
  assert (
    "fc is reinitialized (the source's classes are a, b, c" in start.description
  )


def converted(folder, channels, num_classes=None, **options):
  """A folder of converted weights of "tiny", which has 1000 classes."""
  model = create("tiny", num_classes=1000, **options)
  images = jnp.zeros((1, 24, 24, channels))
  init = jax.jit(model.init)
  variables = jax.device_get(init(jax.random.key(5), images))
  if num_classes is None:
    del variables["params"]["fc"]
  info = {
    "model": "tiny",
    "channels": channels,
    "num_classes": num_classes,
    "options": {},
    "mean": [0.4] * channels,
    "std": [0.2] * channels,
  }
  converted_weights.save(folder, variables, info)
  return variables


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3)])
def test_the_stem_takes_grey_images_in_other_channels(tmp_path, theirs, ours):
  variables = converted(tmp_path / "w", theirs, num_classes=1000)
  parts = create_experiment(config(tmp_path / "w", input__channels=ours))
  line = described(parts)
  assert (
    f"conv1/kernel converted from {theirs} to {ours} input channels" in line
  )
  assert "fc is reinitialized (7 classes, not 1000)" in line
  assert "trained on mean [0.4" in line and "here 0 to 1" in line
  state = first_state(parts)
  params = state.params | {"fc": variables["params"]["fc"]}
  grey = jax.random.uniform(jax.random.key(1), (2, 24, 24, 1))
  model = create("tiny", num_classes=1000)
  apply = jax.jit(model.apply)
  expected = apply(variables, jnp.repeat(grey, theirs, axis=-1))
  logits = apply(
    {"params": params, "batch_stats": state.batch_stats},
    jnp.repeat(grey, ours, axis=-1),
  )
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_weights_without_a_head_start_one(tmp_path):
  converted(tmp_path / "w", 1)
  parts = create_experiment(config(tmp_path / "w"))
  assert "fc is reinitialized (the source has none)" in described(parts)


def test_all_that_does_not_fit_is_listed_and_no_workdir_is_left(
  tmp_path, source, monkeypatch
):
  deeper = functools.partial(
    resnet.ResNet, stage_sizes=(2,), block=resnet.BottleneckBlock
  )
  monkeypatch.setitem(create.__globals__["MODELS"], "deeper", deeper)
  wrong = config(source, model__name="deeper", model__stem="small")
  with pytest.raises(UserError) as refusal:
    train_loop.train_and_evaluate(wrong, tmp_path / "new")
  message = str(refusal.value)
  assert "\n" not in message
  assert "the source's tiny does not match this run's deeper" in message
  assert "missing: batch_stats/layer1_0/bn3/mean;" in message
  assert "params/layer1_1/conv1/kernel" in message
  assert "params/conv1/kernel [7, 7, 1, 64], not [3, 3, 1, 64]" in message
  assert not (tmp_path / "new").exists()


def test_a_place_without_weights_is_refused(tmp_path):
  with pytest.raises(
    UserError, match="init_from=.*must be the workdir.*timm:NAME"
  ):
    initial_weights.read(str(tmp_path / "nothing"))
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(UserError, match="no best checkpoint"):
    initial_weights.read(str(tmp_path))


def released_model(variant="half", **options):
  """Returns a model of which the released ones are, and its configuration."""
  config = recipes.get_config(f"fer2013_resnet18:{variant}")
  config = configs.with_dataset_input(config, (48, 48, 1))
  model = config.model.to_dict() | options
  return models.create(model.pop("name"), 7, **model), config


@pytest.mark.parametrize(
  ("variant", "name"),
  [("half", "ferplus-small"), ("tuned", "ferplus-resnet18")],
)
def test_a_released_model_is_a_source(variant, name):
  model, config = released_model(variant)
  assert variant != "tuned" or config.init_from == name
  weights = initial_weights.read(name)
  fitted = initial_weights.fit(weights, model, config, tuple("abcdefg"))
  assert fitted.description == (
    f"initial weights: {name} (resnet18); fc is reinitialized (7 classes,"
    " not 8)"
  )
  released_weights, _ = released.read_released(name)
  np.testing.assert_array_equal(
    fitted.arrays["params/conv1/kernel"],
    released_weights["params"]["conv1"]["kernel"],
  )


def test_a_source_of_other_options_says_which():
  model, config = released_model(width=1.0, stem="small")
  weights = initial_weights.read("ferplus-small")
  with pytest.raises(
    UserError, match=r"with: model.stem=small_stride2 model.width=0.5\. "
  ):
    initial_weights.fit(weights, model, config, tuple("abcdefg"))
  default = dataclasses.replace(weights, options={"width": 0.5})
  with pytest.raises(
    UserError, match=r"with: .*model.stem=imagenet model.width=0.5\. "
  ):
    initial_weights.fit(default, model, config, tuple("abcdefg"))


def test_a_resumed_run_needs_no_source(tmp_path, source):
  copy = tmp_path / "source"
  shutil.copytree(source, copy)
  tuned = config(copy, num_epochs=1, optimizer__learning_rate=1e-4)
  first = train_loop.train_and_evaluate(tuned, tmp_path / "run")
  # A fresh model is at chance in its first epoch.
  (epoch,) = [
    r for r in metric_writer.read(tmp_path / "run") if r["kind"] == "epoch"
  ]
  assert epoch["train_accuracy"] > 0.9
  shutil.rmtree(copy)
  second = train_loop.train_and_evaluate(tuned, tmp_path / "run")
  assert second.validation == first.validation
  with pytest.raises(UserError, match="init_from: .* -> ''"):
    train_loop.train_and_evaluate(
      config("", num_epochs=1, optimizer__learning_rate=1e-4), tmp_path / "run"
    )


class Hub:
  """What a publisher serves, as files."""

  def __init__(self, folder, monkeypatch):
    self.folder = folder / "hub"
    monkeypatch.setattr(
      download, "TIMM", f"file://{self.folder}/{{}}/{{}}/model.safetensors"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    self.cache = folder / "cache" / "fer_jax" / "weights"
    name = download.TIMM_NAMES["mobilenet_v2"]
    self.file = self.folder / name / "resolve" / "model.safetensors"
    self.pointer = self.folder / name / "raw" / "model.safetensors"

  def publish(self):
    """Puts the file and its pointer there."""
    scheme = next(s for s in SCHEMES["mobilenet_v2"] if s.name == "timm")
    places = conversion.reference_tensors("mobilenet_v2", scheme, 5)
    tensors = {p.name: np.ones(p.shape, np.float32) for p in places.values()}
    self.file.parent.mkdir(parents=True)
    self.pointer.parent.mkdir()
    safetensors.numpy.save_file(tensors, self.file)
    sha256 = hashlib.sha256(self.file.read_bytes()).hexdigest()
    self.state(sha256)

  def state(self, sha256):
    """Writes the pointer."""
    self.pointer.write_text(
      "version https://git-lfs.github.com/spec/v1\n"
      f"oid sha256:{sha256}\nsize 1\n"
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
  return Hub(tmp_path, monkeypatch)


def test_published_weights_are_downloaded_once(hub):
  hub.publish()
  weights = initial_weights.read("timm:mobilenet_v2")
  assert weights.model == "mobilenet_v2" and weights.classes == 5
  shutil.rmtree(hub.folder)
  again = initial_weights.read("timm:mobilenet_v2")
  jax.tree.map(np.testing.assert_array_equal, weights.arrays, again.arrays)
  assert [path.name for path in hub.cache.iterdir()] == [
    "timm-mobilenetv2_100.ra_in1k"
  ]


def test_two_processes_may_download_at_once(hub, monkeypatch):
  hub.publish()
  check = download._check

  def overtaken(*_):
    monkeypatch.setattr(download, "_check", check)
    download.folder_of("timm:mobilenet_v2")

  monkeypatch.setattr(download, "_check", overtaken)
  assert download.folder_of("timm:mobilenet_v2").is_dir()


def test_a_file_that_was_changed_is_refused(hub):
  hub.publish()
  hub.state("0" * 64)
  with pytest.raises(UserError, match="but its publisher states"):
    initial_weights.read("timm:mobilenet_v2")
  assert not list(hub.cache.iterdir())


def test_without_a_network_the_way_out_is_said(hub):
  with pytest.raises(UserError) as refusal:
    initial_weights.read("timm:mobilenet_v2")
  message = str(refusal.value)
  assert f"cannot download file://{hub.file}" in message
  assert "fer-jax convert FILE --model=mobilenet_v2" in message
  assert not list(hub.cache.iterdir())


def test_a_cache_that_cannot_be_written_is_named(hub):
  hub.publish()
  hub.cache.parent.parent.write_text("a file")
  with pytest.raises(UserError) as refusal:
    initial_weights.read("timm:mobilenet_v2")
  message = str(refusal.value)
  assert f"cannot write the cache {hub.cache} (Not a directory)" in message
  assert "XDG_CACHE_HOME" in message


def test_a_proxys_page_is_no_pointer(hub):
  hub.publish()
  hub.pointer.write_bytes("<html>Zugriff verweigert für Sie".encode("latin-1"))
  with pytest.raises(UserError, match="states no SHA-256"):
    initial_weights.read("timm:mobilenet_v2")


def test_torchvisions_files_need_torch(hub, monkeypatch):
  monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match="pip install 'torch>=2.6', or use timm"):
    initial_weights.read("torchvision:resnet18")


@pytest.mark.parametrize("source", ["timm:resnet19", "torchvision:mobilenet"])
def test_an_unknown_name_lists_what_there_is(source):
  with pytest.raises(UserError, match="unknown model.*resnet18"):
    initial_weights.read(source)
