"""Files of a workdir that hold other JSON than they should."""

import pytest

from fer_jax import recipes
from fer_jax.errors import UserError
from fer_jax.training import workdir
from fer_jax.training.logging import metric_writer

WRONG = ["[]", "null", "3", '"a"', "{", "", "\x00", '{"model": []}']


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_config_is_one_line(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  (tmp_path / "checkpoints" / "1").mkdir(parents=True)
  config = recipes.get_config("resnet18")
  with pytest.raises(UserError, match=r"config\.json cannot be read") as error:
    with workdir.claim(tmp_path, config):
      pass
  assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("text", [text for text in WRONG if text])
def test_wrong_metrics_are_one_line(tmp_path, text):
  (tmp_path / "metrics.jsonl").write_text(text + "\n")
  with pytest.raises(UserError, match="line 1 of .* is not a record") as error:
    metric_writer.read(tmp_path)
  assert "\n" not in str(error.value)
