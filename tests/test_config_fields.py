"""Setting fields of a configuration by name, as flags and the API do."""

import numpy as np
import pytest

from fer_jax import config as configs
from fer_jax import config_fields, recipes
from fer_jax.configs import default
from fer_jax.errors import UserError


def parse(**texts: str):
  fields = {name.replace("__", "."): text for name, text in texts.items()}
  config = default.get_config()
  parsed = config_fields.parse_fields(config, fields)
  return config_fields.set_fields(config, parsed), parsed


def test_texts_are_read_as_the_types_of_their_fields():
  config, _ = parse(
    seed="3",
    ema_decay="0",
    augment__flip="True",
    input__mean="0.5,0.4,0.3",
    schedule__step_epochs="(3, 4.5)",
    init_from="None",
  )
  assert config.seed == 3 and config.ema_decay == 0.0
  assert config.augment.flip is True and config.init_from == "None"
  assert config.input.mean == (0.5, 0.4, 0.3)
  assert config.schedule.step_epochs == (3, 4.5)


def test_options_of_the_named_model_and_dataset_whatever_their_order():
  config, parsed = parse(
    model__widths="8,16",
    model__batch_norm="false",
    model__name="leaky_cnn",
    dataset__num_train="100",
    dataset__name="synthetic_faces",
  )
  assert parsed["model.widths"] == (8, 16)
  assert config.model.batch_norm is False
  assert config.dataset.num_train == 100
  configs.check(config)


def test_scalars_of_numpy_and_paths_are_accepted(tmp_path):
  fields = {
    "optimizer.learning_rate": np.float64(0.5),
    "seed": np.int64(3),
    "augment.flip": np.bool_(False),
    "input.mean": np.array([0.5]),
    "dataset.data_dir": tmp_path,
  }
  config = recipes.get_config("resnet50", fields)
  assert config.dataset.data_dir == str(tmp_path)
  types = [type(config_fields.flatten(config)[field]) for field in fields]
  assert types == [float, int, bool, tuple, str]
  config.model.stochastic_depth = np.float32(
    0.5
  )  # Sections of options are open.
  configs.check(config)
  assert configs.to_json(config)["model"]["stochastic_depth"] == 0.5
  with pytest.raises(UserError, match="seed=0.5 must be an integer"):
    recipes.get_config("resnet50", seed=np.float64(0.5))


def test_none_unsets_what_a_recipe_set():
  recipe = recipes.get_config("lewis_resnet18:small")
  assert recipe.model.stem == "imagenet"
  unset = config_fields.parse_fields(recipe, {"model.stem": "None"})
  config_fields.set_fields(recipe, unset)
  assert "stem" not in recipe.model
  texts = {"model.name": "cbam_resnet34", "model.attention": "none"}
  assert config_fields.parse_fields(recipe, texts) == texts  # its own "none"


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    ({"sed": "3"}, r"unknown field sed \(did you mean seed\?\)"),
    ({"model.stemm": "small"}, "model.stemm: model resnet50 takes .*mean stem"),
    ({"dataset.fold": "1"}, "dataset.fold: dataset fer2013 takes classes"),
    (
      {"optimizer.lr": "1"},
      "field optimizer.lr .*mean optimizer.learning_rate",
    ),
    ({"xyz": "1"}, "unknown field xyz: `fer-jax train --helpfull` lists"),
    ({"optimizer": "1"}, "optimizer is a section: .* such as optimizer.name"),
    ({"model": "resnet34"}, "model is a section: .* such as model.name"),
    ({"model.name": "resnet19"}, "unknown model 'resnet19'"),
    ({"seed": "x"}, "seed='x' must be an integer"),
    ({"seed": "3.5"}, "seed='3.5' must be an integer"),
    ({"augment.flip": "maybe"}, "augment.flip='maybe' must be true or false"),
    ({"input.mean": "a"}, "input.mean='a' must be a tuple"),
  ],
)
def test_wrong_fields_are_one_line(texts, message):
  texts = {"model.name": "resnet50"} | texts
  if "fold" in str(texts):
    texts["dataset.name"] = "fer2013"
  with pytest.raises(UserError, match=message) as error:
    config_fields.parse_fields(default.get_config(), texts)
    config = default.get_config()
    config_fields.set_fields(config, config_fields.parse_fields(config, texts))
    configs.check(config)
  assert "\n" not in str(error.value)


def test_an_option_that_does_not_fit_says_how_to_remove_it():
  config = recipes.get_config("lewis_resnet18:small", model={"name": "alexnet"})
  with pytest.raises(UserError, match="takes dropout; model.stem=None removes"):
    configs.check(config)


def test_sections_are_open_and_all_else_is_locked():
  config = recipes.get_config("resnet50")
  config.model.stem = "small"
  with pytest.raises(AttributeError):
    config.batch_sise = 3
