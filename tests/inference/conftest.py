"""A predictor, and the test images, also as a film."""

import numpy as np
import pytest
import trained_run
from video_files import FRAMES, write_video

from fer_jax.data import load
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel


@pytest.fixture
def detector():
  """The default one; tests of other detectors define this fixture."""
  return None


@pytest.fixture
def predictor(tiny_model, detector):
  """Answers with the model of the tests' trained run."""
  trained = TrainedModel.load(trained_run.workdir(), batch_size=8)
  return Predictor(trained, detector)


@pytest.fixture
def images(tiny_model):
  """Uint8 [30 48 48 1]: the test images."""
  prepared = str(trained_run.folder() / "prepared")
  return load("bars", data_dir=prepared).split("test").arrays()["image"]


@pytest.fixture
def frames(images):
  """Uint8 [20 48 48 3]: the first test images, one per frame, as a camera's."""
  return np.repeat(images[:FRAMES], 3, axis=3)


@pytest.fixture
def film(frames, tmp_path):
  """The images as a video, losslessly."""
  return write_video(tmp_path / "film.mkv", frames)
