"""Small releases of the datasets of image files, drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax.data.splits import Dataset


def color(value: int, size: int = 100) -> Image.Image:
  """An image that tells its number: red is it."""
  return Image.new("RGB", (size, size), (value, 0, 255 - value))


def save(path: Path, image: Image.Image) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path)


def write_rafdb(root: Path, train: int = 14, test: int = 7) -> None:
  """The official layout; class `i % 7 + 1`."""
  lines = []
  for split, count in (("train", train), ("test", test)):
    for i in range(count):
      lines.append(f"{split}_{i + 1:05}.jpg {i % 7 + 1}")
      name = f"Image/aligned/{split}_{i + 1:05}_aligned.jpg"
      save(root / name, color(10 * i))
  (root / "EmoLabel").mkdir()
  text = "\n".join([*lines, ""])
  (root / "EmoLabel/list_patition_label.txt").write_text(text)


def write_affectnet(root: Path, numbers: dict[str, list[int]]) -> None:
  """The official layout; `numbers` are each split's annotations."""
  for split, annotations in numbers.items():
    for i, number in enumerate(annotations):
      folder = root / split
      save(folder / f"images/{i}.jpg", color(10 * i, 224))
      (folder / "annotations").mkdir(exist_ok=True)
      # Text in the official release, numbers in others.
      value = np.array(str(number)) if i % 2 else np.array(number)
      np.save(folder / f"annotations/{i}_exp.npy", value)
      np.save(folder / f"annotations/{i}_val.npy", np.array("0.5"))


def write_jaffe(root: Path) -> None:
  """Two images of each expression of ten subjects."""
  number = 0
  for subject in "KA KL KM KR MK NA NM TM UY YM".split():
    for code in "AN DI FE HA NE SA SU".split():
      for pose in (1, 2):
        number += 1
        name = f"jaffe/{subject}.{code}{pose}.{number}.tiff"
        save(root / name, Image.new("L", (64, 64), number))


def targets(dataset: Dataset, split: str) -> list[int]:
  """Returns the labels of a dataset that is prepared."""
  return dataset.split(split).arrays()["target"].tolist()
