"""Image files for tests of the demo."""

import io

import numpy as np
from PIL import Image


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
  """The content of an image file."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind)
  return file.getvalue()


def picture(height: int = 60, width: int = 100) -> np.ndarray:
  """A colored image of noise."""
  rng = np.random.default_rng(0)
  return rng.integers(1, 256, size=(height, width, 3), dtype=np.uint8)
