"""Tiny releases of FER2013, the same faces in every form."""

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fer_jax.data.datasets.class_names import FER2013_CLASSES


class Face(NamedTuple):
  """A row before it is written to a release."""

  usage: str
  label: int
  image: np.ndarray  # uint8 [48 48]


def make_faces(*usages: str) -> list[Face]:
  rng = np.random.default_rng(0)
  return [
    Face(usage, i % 7, rng.integers(0, 256, (48, 48), dtype=np.uint8))
    for i, usage in enumerate(usages)
  ]


def pixels(image: np.ndarray) -> str:
  return " ".join(map(str, image.ravel()))


def challenge_csv(faces: list[Face]) -> bytes:
  lines = ["emotion,pixels,Usage"]
  lines += [f"{f.label},{pixels(f.image)},{f.usage}" for f in faces]
  return "\n".join([*lines, ""]).encode()


def icml_csv(faces: list[Face]) -> bytes:
  lines = ["emotion, Usage, pixels"]
  lines += [f"{f.label},{f.usage},{pixels(f.image)}" for f in faces]
  return "\r\n".join([*lines, ""]).encode()


def image_files(faces: list[Face]) -> dict[str, bytes]:
  """Names and contents; lossless, under the names the release has."""
  files = {}
  for row, face in enumerate(faces):
    content = io.BytesIO()
    Image.fromarray(face.image).save(content, "png")
    folder = "train" if face.usage == "Training" else "test"
    name = FER2013_CLASSES[face.label]
    files[f"{folder}/{name}/{face.usage}_{row}.jpg"] = content.getvalue()
  return files


def tarred(members: dict[str, bytes], mode: str) -> bytes:
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return out.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> None:
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _tar_gz(faces: list[Face]) -> bytes:
  members = {
    "fer2013/README": b"?",
    "fer2013/fer2013.csv": challenge_csv(faces),
  }
  return tarred(members, "w:gz")


# Form -> the files of a folder that holds the release in that form.
FORMS: dict[str, Callable[[list[Face]], dict[str, bytes]]] = {
  "csv": lambda f: {"fer2013.csv": challenge_csv(f)},
  "gz": lambda f: {"fer2013.csv.gz": gzip.compress(challenge_csv(f))},
  "xz": lambda f: {"fer2013.csv.xz": lzma.compress(challenge_csv(f))},
  "tar.gz": lambda f: {"fer2013.tar.gz": _tar_gz(f)},
  "tar": lambda f: {
    "fer2013.tar": tarred({"fer2013/fer2013.csv": challenge_csv(f)}, "w")
  },
  "icml": lambda f: {"icml_face_data.csv": icml_csv(f)},
  "csv.zip": lambda f: {
    "fer2013.csv.zip": zipped({"fer2013.csv": challenge_csv(f)})
  },
  "kaggle zip": lambda f: {
    "archive.zip": zipped(
      {
        "example_submission.csv": b"emotion\n",
        "__MACOSX/._fer2013.csv": b"?",
        "icml_face_data.csv": icml_csv(f),
        "train.csv": b"emotion,pixels\n",
      }
    )
  },
  "tar.gz in zip": lambda f: {
    "fer2013.zip": zipped({"x/fer2013.tar.gz": _tar_gz(f)})
  },
  "unpacked tar": lambda f: {"fer2013/fer2013.csv": challenge_csv(f)},
  "folders": lambda f: {"train/.DS_Store": b"?", **image_files(f)},
  "folders zip": lambda f: {
    "archive.zip": zipped(
      {
        "__MACOSX/train/angry/._Training_0.jpg": b"?",
        **{f"archive/{name}": c for name, c in image_files(f).items()},
      }
    )
  },
}


def all_faces() -> list[Face]:
  """Two rows of each split and class, the splits mixed."""
  usages = ["Training"] * 7 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
  return make_faces(*usages, *usages)
