"""Synthetic faces: portraits drawn in code, with FER2013's seven classes.

Nothing to download, prepared in seconds, learned in a few epochs. An expression
is a set of facial action units (AU; Ekman and Friesen 1978, Facial Action
Coding System), drawn at any intensity from barely visible to full, on varied
people, poses and photographs.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, Int, UInt8

from fer_jax.data.datasets import class_names, synthetic_portrait
from fer_jax.data.datasets.builder import Example, FaceBuilder
from fer_jax.errors import require

SIDE = 48

# Each expression shows in one of several ways. AU 1, 2: inner and outer brow
# raised; 4: brows lowered and drawn together; 5: upper lid raised; 6: cheeks
# raised; 7: lids tightened; 9: nose wrinkled; 10: upper lip raised; 12, 15:
# corners of the mouth up, down; 17: chin raised; 20: mouth stretched; 24: lips
# pressed; 25: lips parted; 26: jaw dropped; 43: eyes half-closed. `teeth` is
# how far they fill an open mouth.
VARIANTS: Mapping[str, Sequence[Mapping[str, float]]] = {
  "angry": (
    dict(au4=1.0, au5=0.3, au7=0.7, au17=0.4, au24=1.0, au15=0.2),
    dict(au4=1.0, au7=0.8, au10=0.5, au20=0.3, au25=0.9, teeth=1.0),
    dict(au4=1.0, au5=0.4, au7=0.5, au10=0.3, au25=0.8, au26=0.5, teeth=0.4),
  ),
  "disgust": (
    dict(au4=0.5, au6=0.3, au7=0.5, au9=1.0, au10=1.0, au17=0.5, au15=0.4),
    dict(au4=0.4, au7=0.6, au9=1.0, au10=0.9, au25=0.6, au15=0.5, teeth=0.5),
  ),
  "fear": (
    dict(au1=1.0, au2=0.5, au4=0.6, au5=0.9, au20=0.9, au25=0.6, teeth=0.7),
    dict(au1=1.0, au2=0.6, au4=0.5, au5=1.0, au20=0.7, au25=0.5, au26=0.5),
  ),
  "happy": (
    dict(au6=0.7, au12=0.9),
    dict(au6=0.8, au12=1.0, au25=0.9, teeth=0.9),
    dict(au6=1.0, au12=1.0, au25=1.0, au26=0.5, teeth=0.4),
  ),
  "sad": (
    dict(au1=1.0, au4=0.4, au15=1.0, au17=0.6, au43=0.6),
    dict(au1=1.0, au4=0.6, au15=0.8, au7=0.3, au25=0.3, au43=0.7),
  ),
  "surprise": (
    dict(au1=1.0, au2=1.0, au5=0.9, au25=1.0, au26=1.0),
    dict(au1=0.9, au2=1.0, au5=0.7, au25=0.8, au26=0.6, teeth=0.2),
  ),
  "neutral": ({}, dict(au43=0.25), dict(au24=0.3)),
}
UNITS = tuple(
  "au1 au2 au4 au5 au6 au7 au9 au10 au12 au15 au17 au20 au24 au25 au26 au43 "
  "teeth".split()
)

# The other parameters of an image: uniform between these values. Lengths
# are in the head's frame (see `synthetic_canvas`), grays from 0 (black) to 1. A
# range of 0..1 selects a variant (which hair, with a beard or not).
RANGES = {
  # Pose. `roll` is the tangent of half the angle; 0.09 is 10 degrees.
  "roll": (-0.09, 0.09),
  "yaw": (-0.17, 0.17),
  "pitch": (-0.13, 0.13),
  "size": (0.84, 1.02),
  "left": (-0.08, 0.08),
  "top": (-0.04, 0.1),
  # The person.
  "skin": (0.36, 0.9),
  "width": (0.68, 0.84),
  "jaw": (-0.25, 0.75),
  "ears": (0.7, 1.1),
  "age": (0.0, 1.0),
  "hair": (0.06, 0.72),
  "hair_style": (0.0, 1.0),
  "hair_volume": (0.02, 0.2),
  "hair_length": (0.75, 1.35),
  "hair_texture": (0.0, 1.0),
  "hairline": (0.52, 0.74),
  "parting": (-0.6, 0.6),
  "strands": (3.0, 5.5),
  "beard": (0.0, 1.0),
  "glasses": (0.0, 1.0),
  "frame": (0.0, 1.0),
  "eye_x": (0.31, 0.37),
  "eye_y": (-0.09, -0.01),
  "eye_width": (0.19, 0.23),
  "eye_height": (0.12, 0.155),
  "eye_slant": (-0.01, 0.03),
  "iris": (0.1, 0.42),
  "iris_size": (0.095, 0.12),
  "lashes": (0.014, 0.034),
  "gaze_x": (-0.05, 0.05),
  "gaze_y": (-0.02, 0.02),
  "brow": (0.12, 0.45),
  "brow_y": (-0.34, -0.26),
  "brow_arch": (0.01, 0.07),
  "brow_thick": (0.03, 0.058),
  "quirk": (-1.0, 1.0),
  "nose_y": (0.22, 0.32),
  "nose_width": (0.11, 0.17),
  "nose_length": (0.7, 1.2),
  "mouth_y": (0.53, 0.61),
  "mouth_width": (0.29, 0.36),
  "lips": (0.05, 0.11),
  "lip_shade": (0.55, 0.85),
  "smirk": (-0.02, 0.02),
  # Surroundings and light.
  "wall": (0.1, 0.9),
  "wall_right": (-0.2, 0.2),
  "wall_down": (-0.2, 0.2),
  "wall_kind": (0.0, 1.0),
  "stripes": (0.5, 3.0),
  "stripes_slant": (-2.0, 2.0),
  "cloth": (0.05, 0.9),
  "light_x": (-0.75, 0.75),
  "light_y": (-0.6, 0.15),
  "light_z": (0.75, 1.0),
  "occluder": (0.0, 1.0),
  "hide_at": (-0.6, 0.6),
  "hide_slant": (-1.0, 1.0),
  # The photograph.
  "contrast": (0.75, 1.2),
  "brightness": (-0.1, 0.1),
  "blur": (0.0, 0.2),
  "noise": (0.05, 0.14),
}

# An expression's strength lies between WEAKEST and 1, more often near 1, and
# each of its units varies separately; units that it does not use reach TWITCH.
# So some faces are close to neutral. ResNet-18 needs a few epochs.
WEAKEST = 0.75
TWITCH = 0.2

# Of the classes, in percent: disgust is rare and happy frequent, as in
# FER2013, but not as much.
CLASS_WEIGHTS = (14, 9, 14, 19, 15, 14, 15)

# Images painted at once: their arrays fit a core's cache.
_CHUNK = 16


def draw_faces(
  targets: Int[np.ndarray, "n"], seed: int, *, side: int = SIDE, first: int = 0
) -> UInt8[np.ndarray, "n side side 1"]:
  """Draws one face per target.

  Image i depends on its target, `seed` and `first + i` only, to the byte, on
  any machine. Person, pose and photograph come from seed and number alone:
  other targets give the same people with other expressions.

  Args:
    targets: class numbers, in the order of `class_names.FER2013_CLASSES`.
    seed: 0 or more.
    side: height and width in pixels.
    first: number of the first image.
  """
  images = np.empty((len(targets), side, side, 1), np.uint8)
  for start in range(0, len(targets), _CHUNK):
    chunk = targets[start : start + _CHUNK]
    images[start : start + len(chunk), ..., 0] = _draw_chunk(
      chunk, seed, first + start, side
    )
  return images


def _draw_chunk(
  targets: Int[np.ndarray, "n"], seed: int, first: int, side: int
) -> UInt8[np.ndarray, "n side side"]:
  num_looks, num_units = len(RANGES), len(UNITS)
  uniform = np.empty((len(targets), num_looks + 2 * num_units + 2))
  grain = np.empty((len(targets), side, side), np.float32)
  for i in range(len(targets)):
    rng = np.random.default_rng(np.random.SeedSequence([seed, first + i]))
    uniform[i] = rng.random(uniform.shape[1])
    # The sum of four bytes is close enough to a normal, and exact.
    grain[i] = rng.integers(0, 256, (4, side, side), np.uint8).sum(
      0, dtype=np.int32
    )
  looks, jitter, idle, rest = np.split(
    uniform, np.cumsum([num_looks, num_units, num_units]), axis=1
  )
  low, high = np.array(list(RANGES.values())).T
  values = dict(zip(RANGES, (low + (high - low) * looks).T, strict=True))
  units = _intensities(targets, jitter, idle, rest)
  values |= dict(zip(UNITS, units.T, strict=True))
  p = SimpleNamespace(
    **{k: v.astype(np.float32)[:, None, None] for k, v in values.items()}
  )
  return _photograph(synthetic_portrait.paint(p, side), grain, p)


def _intensities(
  targets: Int[np.ndarray, "n"],
  jitter: np.ndarray,
  idle: np.ndarray,
  rest: np.ndarray,
) -> np.ndarray:
  """Returns the intensity of each face's action units, 0..1, `[n units]`.

  Args:
    targets: class numbers.
    jitter: uniform on 0..1 `[n units]`, varies the units of an expression.
    idle: the same, moves the units that it does not use.
    rest: the same `[n 2]`, picks strength and variant of the expression.
  """
  strength = WEAKEST + (1 - WEAKEST) * np.sqrt(rest[:, :1])
  full = np.zeros(jitter.shape)
  for i, target in enumerate(targets):
    variants = VARIANTS[class_names.FER2013_CLASSES[target]]
    variant = variants[int(rest[i, 1] * len(variants))]
    full[i] = [variant.get(unit, 0.0) for unit in UNITS]
  twitch = TWITCH * idle * idle * idle
  return np.minimum(full * strength * (0.7 + 0.4 * jitter) + twitch, 1)


def _photograph(
  scene: Float32[np.ndarray, "n side side"],
  grain: Float32[np.ndarray, "n side side"],
  p: SimpleNamespace,
) -> UInt8[np.ndarray, "n side side"]:
  """Applies exposure, blur and noise, and quantizes to eight bits."""
  image = 0.5 + p.contrast * (scene - 0.5) + p.brightness
  for axis in (1, 2):
    pad = [(1, 1) if a == axis else (0, 0) for a in range(3)]
    padded = np.pad(image, pad, mode="edge")
    n = image.shape[axis]
    before = padded.take(range(n), axis)
    after = padded.take(range(2, n + 2), axis)
    image = image + p.blur * (before + after - 2 * image)
  # 148 is the grain's deviation; squared, little noise is the most common.
  image = image + p.noise * p.noise / 148 * (grain - 510)
  return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


class SyntheticFaces(FaceBuilder):
  """Faces drawn in code: 7,000 to train on, 1,000 each to validate and test.

  Imbalanced like FER2013, but less, by `CLASS_WEIGHTS` in every split; no two
  splits use the same seed. Options: `default_options`.
  """

  VERSION = tfds.core.Version("1.0.0")
  classes = class_names.FER2013_CLASSES
  default_options = {
    "num_train": 7000,
    "num_validation": 1000,
    "num_test": 1000,
    "seed": 0,
  }

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    for option, value in self.options.items():
      ok = isinstance(value, int) and value >= 0
      require(ok, f"dataset.{option}", value, "be an integer >= 0")

  def split_seeds(self) -> dict[str, int]:
    """Returns the seed of each split for `draw_faces`."""
    splits = ("train", "validation", "test")
    first = len(splits) * self.options["seed"]
    return {split: first + i for i, split in enumerate(splits)}

  def read_examples(self) -> Mapping[str, Iterator[Example]]:
    """Draws the images of each split when they are requested."""
    return {
      split: _examples(self.options[f"num_{split}"], seed)
      for split, seed in self.split_seeds().items()
    }


def class_counts(num_images: int) -> list[int]:
  """Returns the number of images of each class, by largest remainder.

  >>> class_counts(1000)
  [140, 90, 140, 190, 150, 140, 150]
  """
  exact = [w * num_images / sum(CLASS_WEIGHTS) for w in CLASS_WEIGHTS]
  counts = [int(number) for number in exact]
  order = sorted(range(len(CLASS_WEIGHTS)), key=lambda i: counts[i] - exact[i])
  for i in order[: num_images - sum(counts)]:
    counts[i] += 1
  return counts


def _examples(num_images: int, seed: int) -> Iterator[Example]:
  targets = np.repeat(np.arange(len(CLASS_WEIGHTS)), class_counts(num_images))
  # By `random`, whose values numpy keeps, unlike those of `permutation`.
  order = np.random.default_rng(seed).random(num_images).argsort(kind="stable")
  targets = targets[order]
  for start in range(0, num_images, _CHUNK):
    chunk = targets[start : start + _CHUNK]
    images = draw_faces(chunk, seed, first=start)
    for i, (image, target) in enumerate(zip(images, chunk, strict=True)):
      yield image, int(target), start + i
