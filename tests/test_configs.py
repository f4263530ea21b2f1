"""Every recipe is checked, built and traced: whole steps, nothing compiled."""

import importlib
import importlib.util
import pathlib
import tomllib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import configs as recipes
from fer_jax.configs import default
from fer_jax.data import registry as datasets
from fer_jax.data import views
from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.registry import MODELS
from fer_jax.training import setup
from fer_jax.training.metrics import Sums

FOLDER = pathlib.Path(recipes.__path__[0])
NAMES = sorted(
  path.stem
  for path in FOLDER.glob("*.py")
  if path.stem not in ("__init__", "default")
)


def load(name: str) -> ConfigDict:
  spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return tmp_path_factory.mktemp("prepared")


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains_in_the_abstract(name, prepared):
  """Shapes and dtypes of a whole step and evaluation, without computing."""
  config = load(name)
  config.dataset = ConfigDict(
    {
      "name": "synthetic_faces",
      "prepared_dir": str(prepared),
      "num_train": 256,
      "num_validation": 16,
      "num_test": 16,
    }
  )
  config.parallel = "jit"
  parts = setup.build(config.lock())
  shape = jax.ShapeDtypeStruct
  b = config.batch_size
  batch = {
    "image": shape((b, 48, 48, 1), np.uint8),
    "target": shape((b,), np.int32),
  }
  state = jax.eval_shape(parts.init_state)
  sums = jax.eval_shape(Sums.zeros)
  rng = jax.eval_shape(parts.step_rng)
  after, seen = jax.eval_shape(parts.steps.train, state, sums, {}, batch, rng)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  held = batch | {"mask": shape((b,), np.bool_)}
  variables = state.eval_variables()
  jax.eval_shape(parts.steps.evaluate, variables, seen, {}, held)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_says_how_to_run_it(name):
  text = (FOLDER / f"{name}.py").read_text()
  assert text.startswith('"""')
  assert f"python -m fer_jax.train --config=configs/{name}.py" in text


def test_pans_recipe_is_the_papers():
  config = load("resnet101")
  assert config.model.name == "resnet101"
  assert (config.batch_size, config.num_epochs) == (32, 50)
  assert config.optimizer.name == "adam"
  assert config.best_metric == "validation_loss"
  assert config.early_stopping.patience > 0


def test_every_field_of_default_has_its_comment():
  lines = (FOLDER / "default.py").read_text().splitlines()
  fields = [i for i, line in enumerate(lines) if line.startswith("  config.")]
  bare = [
    lines[i].strip()
    for i in fields
    if "ConfigDict()" not in lines[i]
    and "#" not in lines[i]
    and not lines[i - 1].strip().startswith("#")
  ]
  assert not bare


def test_every_option_of_a_model_has_its_field_and_no_field_is_for_none():
  options = {o for name in MODELS for o in registry.options_of(name)}
  assert set(default.get_config().model) == {"name"} | options


def test_every_option_of_a_data_set_has_its_field():
  options = set(views.OPTIONS)
  for path in datasets.DATASETS.values():
    module, name = path.split(":")
    builder = getattr(importlib.import_module(module), name)
    options |= set(builder.default_options)
  fields = set(default.get_config().dataset)
  assert fields == {"name", "data_dir", "prepared_dir"} | options


def test_recipes_are_packaged():
  root = pathlib.Path(__file__).parent.parent
  project = tomllib.loads((root / "pyproject.toml").read_text())
  folders = {
    str(path.parent.relative_to(root)).replace("/", ".")
    for path in (root / "fer_jax").rglob("__init__.py")
  }
  packages = set(project["tool"]["setuptools"]["packages"])
  assert packages == folders | {"fer_jax.configs"}


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model.name", "resnet20", "unknown model 'resnet20'.*resnet18"),
    ("dataset.name", "fer", "unknown data set 'fer'.*fer2013"),
    ("feed", "pipe", "feed.*resident, stream"),
    ("dtype", "float16", "dtype.*bfloat16, float32"),
    ("batch_size", 0, "--config.batch_size=0"),
    ("ema_decay", 1.0, "--config.ema_decay=1.0"),
    ("augment.rotation", -1.0, "--config.augment.rotation"),
    ("input.normalization", "zscore", "normalization.*zscore"),
    ("loss.label_smoothing", 1.0, "--config.loss.label_smoothing=1.0"),
  ],
)
def test_a_wrong_field_is_named(field, value, message):
  config = default.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=message):
    configs.check(config)


def test_configurations_survive_json():
  config = default.get_config().lock()
  assert configs.from_json(configs.to_json(config)) == config


def test_differences_leave_out_how_a_run_is_run():
  old, new = default.get_config(), default.get_config()
  new.log_every_steps = 7
  new.checkpoint.keep = 9
  new.dataset.data_dir = "elsewhere"
  assert configs.differences(old, new) == []
  new.optimizer.learning_rate = 0.5
  assert configs.differences(old, new) == [
    "optimizer.learning_rate: 0.001 -> 0.5"
  ]
