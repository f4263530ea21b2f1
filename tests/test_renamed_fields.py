"""Old names of config fields, in flags, recipes and config.json."""

import json

import pytest

from fer_jax import config as configs
from fer_jax import renamed_fields
from fer_jax.cli import old_flags
from fer_jax.configs import default, jiang
from fer_jax.data.datasets import registry
from fer_jax.errors import UserError


def old_json():
  fields = configs.to_json(jiang.get_config())
  fields["model"]["name"] = "ri"
  fields["feed"] = {"in_memory": "resident"}[fields.pop("data_loader")]
  fields["augment"]["erasing"] = 0.3
  del fields["augment"]["random_erasing"]
  del fields["dataset"]["manual_dir"]
  fields["dataset"] |= {"data_dir": "release", "prepared_dir": "prepared"}
  return json.loads(json.dumps(fields))


def test_config_json_of_an_older_release_is_the_same_configuration():
  with pytest.warns(FutureWarning, match="feed is now data_loader") as caught:
    old = configs.from_json(old_json())
  assert len(caught) == 1
  assert old.data_loader == "in_memory" and "feed" not in old
  assert old.augment.random_erasing == 0.3 and "erasing" not in old.augment
  assert old.dataset.manual_dir == "release"
  assert old.dataset.data_dir == "prepared"
  assert "prepared_dir" not in old.dataset
  new = jiang.get_config()
  new.augment.random_erasing = 0.3
  assert configs.differences(old, new) == []
  new.augment.random_erasing = 0.4
  assert configs.differences(old, new) == ["augment.random_erasing: 0.3 -> 0.4"]


def test_present_names_do_not_warn():
  configs.from_json(configs.to_json(default.get_config()))  # Warnings raise.


def test_a_recipe_may_set_old_names():
  recipe = default.get_config()
  recipe.feed = "stream"
  recipe.dataset.prepared_dir = "prepared"
  recipe.lock()
  with pytest.warns(FutureWarning, match="my.py uses old names"):
    configs.upgrade(recipe, "my.py")
  assert recipe.data_loader == "streaming" and "feed" not in recipe
  assert recipe.dataset.data_dir == "prepared"
  assert recipe.dataset.manual_dir == ""
  recipe.dataset.lock()


@pytest.mark.parametrize(
  ("old", "new"),
  [
    (["--config.feed=stream"], ["--config.data_loader=streaming"]),
    (["-config.feed", "in_memory"], ["--config.data_loader", "in_memory"]),
    (["-config.feed", "resident"], ["--config.data_loader", "in_memory"]),
    (
      ["--config.dataset.data_dir=R", "--config.dataset.prepared_dir=P"],
      ["--config.dataset.manual_dir=R", "--config.dataset.data_dir=P"],
    ),
    (
      ["x", "--prepared_dir=P", "--data_dir=R"],
      ["x", "--data_dir=P", "--manual_dir=R"],
    ),
    (["--prepared_dir=P"], ["--data_dir=P"]),
  ],
)
def test_old_flags(old, new):
  with pytest.warns(FutureWarning, match="the command line uses old names"):
    assert old_flags.rename(old) == new


def test_present_flags_are_left_alone():
  given = ["--config.dataset.data_dir=P", "--data_dir=P", "feed=1", "--feed"]
  assert old_flags.rename(given) == given


def test_every_present_name_is_a_field():
  fields = configs.flatten(default.get_config())
  assert set(renamed_fields.RENAMED.values()) <= fields.keys()
  assert "dataset.manual_dir" in fields


@pytest.mark.parametrize("name", ["fer2013", "ferplus", "ckplus"])
@pytest.mark.parametrize("as_file", [False, True])
def test_release_as_data_dir_names_manual_dir(tmp_path, name, as_file):
  file = "ckextended.csv" if name == "ckplus" else "fer2013.csv"
  (tmp_path / file).write_text("emotion,pixels,Usage\n")
  place = str(tmp_path / file if as_file else tmp_path)
  with pytest.raises(UserError, match=f"use dataset.manual_dir={place}"):
    registry.load(name, data_dir=place)


def test_folder_as_data_dir_names_manual_dir(tmp_path):
  with pytest.raises(UserError, match="needs dataset.manual_dir=ROOT.*data_di"):
    registry.load("folder", data_dir=str(tmp_path))
