"""The choice of a face detector."""

from typing import Any

from fer_jax.errors import choose
from fer_jax.faces import centerface, mtcnn, photo_detector
from fer_jax.faces.face import Detector as Detector

DETECTORS = ("mtcnn", "centerface")


def create_detector(name: str = "mtcnn", **options: Any) -> Detector:
  """Loads a detector, to be used for many images.

  Args:
    name: one of `DETECTORS`.
    **options: `min_face`, `detect_size` and `min_score`, see
      `photo_detector.PhotoDetector`.

  Raises:
    UserError: there is no such detector, an option is out of its range, or the
      extra `faces` (`centerface` for that detector) is not installed.
  """
  choose("detector", name, DETECTORS)
  networks: photo_detector.Networks = (
    mtcnn.Mtcnn() if name == "mtcnn" else centerface.CenterFace()
  )
  return photo_detector.PhotoDetector(networks, **options)
