"""Results of predictions: one per face, and one per image."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import UInt8

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
  """One face and its expression.

  Attributes:
    source: the image's path or URL, or its position among the images.
    label: the most probable class.
    probability: of that class.
    probabilities: of every class, by name.
    box: x, y, width and height in the image, in pixels; None where the whole
      image is the face.
    score: the detector's confidence, see `Face`; None for boxes that it did not
      find.
    crop: the face as the model was given it, uint8 `[h w c]`.
  """

  source: str
  label: str
  probability: float
  probabilities: dict[str, float]
  box: Box | None
  score: float | None
  crop: UInt8[np.ndarray, "h w c"]

  def __repr__(self) -> str:
    where = "" if self.box is None else f" at {_rounded(self.box)}"
    return (
      f"Prediction({self.source!r}{where}: {self.label!r},"
      f" probability {self.probability:.3f})"
    )

  def to_json(self) -> dict[str, Any]:
    """Returns all but the crop, as what JSON can hold."""
    return {"source": json_text(self.source)} | self.face_to_json()

  def face_to_json(self) -> dict[str, Any]:
    """Returns all but the crop and the source, as what JSON can hold."""
    return {
      "label": self.label,
      "probability": self.probability,
      "probabilities": self.probabilities,
      "box": _rounded(self.box) if self.box else None,
      "score": self.score,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class ImageResult:
  """The faces of one image or video frame; there may be none.

  Attributes:
    source: the image's or video's path or URL, or its position.
    faces: in the detector's order: the largest first, unless it is your own.
    error: why it could not be read; "" if it was.
    frame: its number in a video, None for images.
    time: seconds since the video's start, None for images.
  """

  source: str
  faces: list[Prediction]
  error: str = ""
  frame: int | None = None
  time: float | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns what JSON can hold, see `face_to_json` for each face."""
    fields: dict[str, Any] = {"source": json_text(self.source)}
    if self.frame is not None and self.time is not None:
      fields |= {"time": round(self.time, 3), "frame": self.frame}
    fields["faces"] = [face.face_to_json() for face in self.faces]
    if self.error:
      fields["error"] = json_text(self.error)
    return fields


def json_text(text: str) -> str:
  r"""Returns text without the halves of surrogates, which are no valid JSON.

  >>> json_text("caf\udce9.png")
  'caf\\udce9.png'
  """
  return text.encode("utf-8", "backslashreplace").decode()


def _rounded(box: Box) -> list[float]:
  return [round(float(number), 1) for number in box]
