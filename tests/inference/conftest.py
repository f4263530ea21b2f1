"""A film of the test images, for the tests of videos."""

import numpy as np
import pytest
import trained_run
from video_files import FRAMES, write_video

from fer_jax.data import load


@pytest.fixture
def frames():
  """Uint8 [20 48 48 3]: the test images, one per frame, as a camera's."""
  prepared = str(trained_run.folder() / "prepared")
  gray = load("bars", data_dir=prepared).split("test").arrays()["image"]
  return np.repeat(gray[:FRAMES], 3, axis=3)


@pytest.fixture
def film(frames, tmp_path):
  """The images as a video, losslessly."""
  return write_video(tmp_path / "film.mkv", frames)
