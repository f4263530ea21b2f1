"""Flags of the commands that find faces."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
  from fer_jax.faces.face import Detector

# Checked by what they are given to, which lists the choices.
_DETECTORS = "mtcnn | centerface"


def define() -> None:
  """Defines the detector and its options."""
  flags.DEFINE_string("detector", "mtcnn", f"Finds the faces: {_DETECTORS}.")
  flags.DEFINE_float("min_face", 24, "Smallest face to find, pixels.")
  flags.DEFINE_integer(
    "detect_size", 0, "Shrinks photos to this side to search; 0: not."
  )


def create() -> "Detector":
  """Loads the detector that the flags describe.

  Raises:
    UserError: as `detection.create_detector` does.
  """
  from fer_jax.faces import detection  # takes a while

  given = flags.FLAGS
  return detection.create_detector(
    given.detector, min_face=given.min_face, detect_size=given.detect_size
  )
