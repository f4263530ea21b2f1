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
from fer_jax import config_fields
from fer_jax import configs as recipes
from fer_jax import recipes as recipes_by_name
from fer_jax.configs import default
from fer_jax.data.datasets import registry as datasets
from fer_jax.errors import UserError
from fer_jax.models.registry import MODELS
from fer_jax.ops import dispatch
from fer_jax.training import config_check
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.split_evaluation import EvalStep

FOLDER = pathlib.Path(recipes.__path__[0])
NAMES = sorted(
  path.stem
  for path in FOLDER.glob("*.py")
  if path.stem not in ("__init__", "default")
)


def load(name: str, *arguments: str) -> ConfigDict:
  spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*arguments)


# Deeper networks of the same blocks as others.
DEEPER = ("resnet101", "resnet152", "jiang_resnet50", "lewis_resnet50")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in DEEPER))
    for name in NAMES
  ],
)
def test_recipe_trains_in_the_abstract(name, prepared):
  """Shapes and dtypes of a whole step and evaluation, without computing."""
  fields = {
    "dataset.name": "synthetic_faces",
    "dataset.data_dir": prepared,
    "dataset.num_train": 256,
    "dataset.num_validation": 16,
    "dataset.num_test": 16,
    "parallel": "jit",
  }
  config = recipes_by_name.get_config(name, fields)
  parts = create_experiment(config)
  shape = jax.ShapeDtypeStruct
  b = config.batch_size
  batch = {
    "image": shape((b, 48, 48, 1), np.uint8),
    "target": shape((b,), np.int32),
  }
  metrics = jax.eval_shape(Metrics.zeros)
  # Lowerings give equal shapes; XLA's own is the quickest to trace.
  with dispatch.use_xla():
    state = parts.state_shapes()
    after, seen = jax.eval_shape(
      parts.train_step(epoch=0), state, metrics, {}, batch, parts.inputs
    )
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  held = batch | {"mask": shape((b,), np.bool_)}
  variables = state.eval_variables()
  with dispatch.use_xla():
    evaluate = EvalStep(parts.config, parts.model, parts.dataset.num_classes)
    jax.eval_shape(evaluate, variables, seen, {}, held)


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


@pytest.mark.parametrize(
  ("recipe", "run", "batch_size", "learning_rate", "num_epochs"),
  [
    ("sutton_alexnet", "A", 256, 0.005, 50),
    ("sutton_alexnet", "B", 128, 0.005, 50),
    ("sutton_alexnet", "C", 128, 0.007, 20),
    ("sutton_resnet34", "A", 256, 0.005, 50),
    ("sutton_resnet34", "B", 128, 0.005, 35),
    ("sutton_resnet34", "C", 128, 0.007, 20),
    ("sutton_cbam_resnet34", "A", 128, 0.005, 50),
    ("sutton_cbam_resnet34", "B", 64, 0.005, 50),
    ("sutton_cbam_resnet34", "C", 128, 0.007, 20),
  ],
)
def test_suttons_runs_are_the_papers(
  recipe, run, batch_size, learning_rate, num_epochs
):
  config = load(recipe, run)
  assert recipe == f"sutton_{config.model.name}"
  assert config.batch_size == batch_size
  assert config.optimizer.learning_rate == learning_rate
  assert config.num_epochs == num_epochs
  assert config.input.image_size == (32 if "alexnet" in recipe else None)
  configs.check(config)


@pytest.mark.parametrize("model", ["alexnet", "resnet34"])
def test_suttons_shared_recipe_is_run_a(model):
  assert load("sutton", model) == load(f"sutton_{model}", "A")


@pytest.mark.parametrize(
  "model",
  [
    "bi_resnet_alternated",
    "bi_resnet_ri",
    "bi_resnet_ir",
    "resnet50",
    "mobilenet",
    "mobilenet_v2",
  ],
)
def test_jiangs_recipes_are_the_papers(model):
  for arguments in ((), ("ferplus",), ("ckplus",)):
    recipe = "jiang_" + model.removeprefix("bi_resnet_")
    config = load(recipe, *arguments)
    assert config.model.name == model
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.b1 == 0.5 and config.batch_size == 64
    ckplus = arguments == ("ckplus",)
    assert config.dataset.name == ("ckplus" if ckplus else "ferplus")
    assert config.dataset.num_classes == (7 if ckplus else 10)
    configs.check(config)


@pytest.mark.parametrize(
  ("recipe", "arguments", "model", "batch_size", "image_size"),
  [
    ("lewis_resnet18", (), "resnet18", 128, 224),
    ("lewis_resnet50", (), "resnet50", 64, 224),
    ("lewis_resnet50", ("small",), "resnet50", 64, 48),
    ("lewis", ("resnet152",), "resnet152", 64, 224),
  ],
)
def test_lewis_recipes_are_the_papers(
  recipe, arguments, model, batch_size, image_size
):
  config = load(recipe, *arguments)
  assert config.model.name == model and config.init_from == f"timm:{model}"
  assert (config.batch_size, config.num_epochs) == (batch_size, 30)
  assert config.input.image_size == image_size and config.input.channels == 3
  assert config.optimizer.name == "adafactor"
  assert config.optimizer.learning_rate == 1e-3
  assert not config.optimizer.weight_decay
  assert (config.schedule.name, config.schedule.end_factor) == ("linear", 0.0)
  assert config.best_metric == "validation_accuracy"
  configs.check(config)


def test_changs_recipe_is_the_papers():
  config = load("chang_cnn")
  assert config.dataset.classes == "happy,neutral,sad"
  assert (config.batch_size, config.num_epochs) == (32, 8)
  assert not config.dataset.holdout_test
  held = load("chang_cnn", "holdout")
  assert held.dataset.holdout_test == held.dataset.holdout_validation == 0.1
  configs.check(held)


@pytest.mark.parametrize(
  ("recipe", "argument", "message"),
  [
    ("sutton_alexnet", "D", "unknown run of sutton_alexnet 'D'.*A, B, C"),
    ("jiang_ri", "fer", "unknown dataset of Jiang's recipe 'fer'"),
    ("chang_cnn", "x", "unknown splits of chang_cnn 'x'"),
    (
      "lewis_resnet18",
      "x",
      "unknown size of Lewis's recipe 'x': .* full, small",
    ),
  ],
)
def test_a_wrong_argument_lists_what_there_is(recipe, argument, message):
  with pytest.raises(UserError, match=message):
    load(recipe, argument)


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


@pytest.mark.parametrize("name", MODELS)
def test_options_of_models_have_types_that_flags_can_give(name):
  kinds = config_fields.option_types("model", name).values()
  assert set(kinds) <= {bool, int, float, str, tuple}


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_options_of_datasets_have_types_that_flags_can_give(name):
  kinds = config_fields.option_types("dataset", name).values()
  assert set(kinds) <= {bool, int, float, str}


def test_recipes_are_packaged():
  root = pathlib.Path(__file__).parent.parent
  project = tomllib.loads((root / "pyproject.toml").read_text())
  folders = {
    str(path.parent.relative_to(root)).replace("/", ".")
    for path in (root / "fer_jax").rglob("__init__.py")
  }
  packages = set(project["tool"]["setuptools"]["packages"])
  assert packages == folders | {"fer_jax.configs", "fer_jax.configs.sweeps"}


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model.name", "resnet20", "unknown model 'resnet20'.*resnet18"),
    ("dataset.name", "fer", "unknown dataset 'fer'.*fer2013"),
    ("data_loader", "pipe", "data_loader.*in_memory, streaming"),
    ("dtype", "float16", "dtype.*bfloat16, float32"),
    ("batch_size", 0, "^batch_size=0"),
    ("ema_decay", 1.0, "^ema_decay=1.0"),
    ("augment.rotation", -1.0, "^augment.rotation"),
    ("input.normalization", "zscore", "normalization.*zscore"),
    ("loss.label_smoothing", 1.0, "^loss.label_smoothing=1.0"),
    ("overfit", -1, "^overfit=-1"),
    ("seed", 2**32, "^seed=4294967296 must be below 4294967296"),
    ("batch_size", None, "^batch_size=None must be an integer"),
    ("num_epoch", 3, r"^unknown field num_epoch \(did you mean num_epochs"),
    ("augment.flipp", True, r"^unknown field augment.flipp \(did you mean"),
  ],
)
def test_a_wrong_field_of_a_recipe_is_named(field, value, message):
  config = default.get_config()
  section, name = config_fields.section_of(config, field)
  with config.ignore_type():
    section[name] = value
  with pytest.raises(UserError, match=message):
    config_check.check(config)


def test_mixed_images_do_not_count_for_two_classes():
  config = recipes_by_name.get_config("resnet50", loss={"name": "multi_target"})
  config_check.check(config)
  config.augment.mixup = 0.2
  with pytest.raises(UserError, match="augment.mixup=0.2 must be 0 with loss"):
    config_check.check(config)


def test_means_are_checked_for_the_channels_of_the_dataset():
  config = default.get_config()
  config.input.mean = config.input.std = (0.4, 0.5, 0.6)
  config.input.normalization = "mean_std"
  config_check.check(config)
  color = configs.with_dataset_input(config, (48, 48, 3))
  assert color.input.channels == 3
  with pytest.raises(UserError, match="input.mean"):
    configs.with_dataset_input(config, (48, 48, 1))


def test_configurations_survive_json():
  config = configs.lock(default.get_config())
  assert configs.from_json(configs.to_json(config)) == config


def test_an_older_configuration_has_the_new_fields_defaults():
  fields = configs.to_json(default.get_config())
  del fields["loss"]["output"], fields["schedule"]
  del fields["init_from"], fields["freeze"], fields["overfit"]
  fields["seed"] = 7
  config = configs.from_json(fields)
  assert config.loss.output == "softmax" and config.seed == 7
  assert config.schedule.name == "fixed"
  assert (config.init_from, config.freeze.patterns, config.overfit) == (
    "",
    "",
    0,
  )
  assert config.loss.label_smoothing == 0.0


def test_differences_leave_out_how_a_run_is_run():
  old, new = default.get_config(), default.get_config()
  new.log_every_steps = 7
  new.checkpoint.keep = 9
  new.dataset.manual_dir = "elsewhere"
  assert configs.differences(old, new) == []
  new.optimizer.learning_rate = 0.5
  assert configs.differences(old, new) == [
    "optimizer.learning_rate: 0.001 -> 0.5"
  ]


def test_an_option_at_its_default_is_no_difference():
  old, new = (recipes_by_name.get_config("chang_cnn") for _ in range(2))
  new.model.activation = "leaky_relu"
  new.dataset.drop_missing = None
  assert configs.differences(old, new) == []
  new.model.activation = "relu"
  change = "model.activation: 'leaky_relu' -> 'relu'"
  assert configs.differences(old, new) == [change]


@pytest.mark.parametrize("name", ["resnet50.json", "~nouser/x.py"])
def test_a_recipe_that_is_not_there_is_one_line(name):
  with pytest.raises(UserError, match="unknown config=resnet50.json|~nouser/"):
    recipes_by_name.get_config(name)


def test_recipes_by_path_and_without_a_choice(tmp_path, monkeypatch):
  (tmp_path / "resnet50").mkdir()
  monkeypatch.chdir(tmp_path)
  assert recipes_by_name.get_config("resnet50").model.name == "resnet50"
  file = FOLDER / "resnet18.py"
  assert recipes_by_name.get_config(file).model.name == "resnet18"
  with pytest.raises(UserError, match="resnet50:x: resnet50 takes no choice"):
    recipes_by_name.get_config("resnet50:x")


@pytest.mark.parametrize("name", recipes_by_name.list_configs())
@pytest.mark.parametrize("dataset", ["ckplus", "ferplus", "synthetic_faces"])
def test_any_recipe_goes_with_any_dataset(name, dataset):
  config = recipes_by_name.get_config(name, {"dataset.name": dataset})
  config_check.check(config)
  own = config.dataset.name == recipes_by_name.load_recipe(name).dataset.name
  assert own or "num_classes" not in config.dataset and not config.loss.teacher


def test_what_is_unset_for_another_dataset_is_printed(capsys):
  name, other = "ferplus_mobilenet_v2", {"dataset.name": "synthetic_faces"}
  recipes_by_name.get_config(name, other)
  assert capsys.readouterr().out == (
    "dataset.name=synthetic_faces: without what the recipe sets for ferplus"
    " (dataset.num_classes=8, dataset.target=distribution,"
    " loss.teacher=ferplus-resnet18)\n"
  )
  recipes_by_name.get_config(name, {"dataset.name": "ferplus"})
  recipes_by_name.get_config("resnet50", other)
  assert not capsys.readouterr().out


def test_what_both_datasets_take_stays(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(
    "import fer_jax\n\n\ndef get_config():\n  return fer_jax.get_config("
    "'resnet18', dataset={'name': 'rafdb', 'image_size': 64,"
    " 'holdout_validation': 0.1})\n"
  )
  config = recipes_by_name.get_config(file, {"dataset.name": "folder"})
  assert config.dataset.image_size == 64
  assert config.dataset.holdout_validation == 0.1


def test_what_the_user_sets_for_another_dataset_is_not_unset():
  fields = {"dataset.name": "synthetic_faces", "loss.teacher": "runs/x"}
  config = recipes_by_name.get_config("ferplus_mobilenet_v2", fields)
  assert config.loss.teacher == "runs/x"
  with pytest.raises(UserError, match="dataset.target: dataset synthetic_face"):
    fields = {"dataset.name": "synthetic_faces", "dataset.target": "majority"}
    recipes_by_name.get_config("jiang_ri", fields)
  other = {"dataset.name": "ckplus", "dataset.num_classes": 8}
  assert recipes_by_name.get_config("jiang_ri", other).dataset == (
    recipes_by_name.get_config("jiang_ri:ckplus", other).dataset
  )
