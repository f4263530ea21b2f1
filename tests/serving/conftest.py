"""A small trained model, served as the demo serves it."""

import pytest
import tiny_run
import trained_run

from fer_jax.faces.face import Face
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel


def left_half(image):
  """Finds one face in any image but a black one."""
  h, w, _ = image.shape
  return [Face((0, 0, w / 2, h), None, None, 0.9)] if image.any() else []


@pytest.fixture(scope="module")
def trained():
  with pytest.MonkeyPatch.context() as patch:
    tiny_run.register(patch)
    return TrainedModel.load(trained_run.workdir(), batch_size=8)


@pytest.fixture(scope="module")
def image_api(trained):
  pytest.importorskip("starlette", reason="needs the extra `demo`")
  from fer_jax.serving.image_api import ImageApi

  api = ImageApi(Predictor(trained, left_half))
  api.warm_up()
  return api
