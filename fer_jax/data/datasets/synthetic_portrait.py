"""Drawing of faces: shaded portraits, whole batches at once."""

from types import SimpleNamespace

import numpy as np

from fer_jax.data.datasets import synthetic_props
from fer_jax.data.datasets.synthetic_canvas import (
  Canvas,
  Pixels,
  blob,
  ellipse,
  hill,
  wave,
)


def paint(p: SimpleNamespace, side: int) -> Pixels:
  """Paints faces, without the camera's blur and noise.

  Args:
    p: float32 arrays `[n 1 1]`: looks, pose and surroundings as named in
      `synthetic_faces.RANGES`, and intensities 0..1 of facial action units,
      `au1`, `au2`, ...
    side: height and width in pixels.

  Returns:
    Gray images, about 0 (black) to 1 (white).
  """
  c = Canvas(p, side)
  synthetic_props.background(c, p)
  hair = synthetic_props.hair_behind(c, p)
  head = _head(c, p)
  _beard(c, p, head)
  _folds(c, p, head)
  _nose(c, p)
  _mouth(c, p)
  _eyes(c, p)
  _brows(c, p)
  synthetic_props.hair_in_front(c, p, hair)
  synthetic_props.glasses(c, p)
  synthetic_props.occlusion(c, p)
  return c.image


def _relief(c: Canvas, p: SimpleNamespace) -> Pixels:
  """Returns the height of the face's surface, for shading."""
  rx, ry = c.x / (p.width * 1.1), c.y / 1.2
  height = 0.75 * np.sqrt(np.maximum(1 - rx * rx - ry * ry, 0.02))
  tip = p.nose_y - 0.03 * p.au9
  along = np.clip((c.v + 0.2) / (tip + 0.2), 0, 1)
  breadth = 0.09 + p.nose_width * along * 0.6
  below = np.clip(1 - (c.v - tip) / 0.11, 0, 1)
  height += 0.24 * p.nose_length * along * below * hill(c.u / (breadth + 0.08))
  height -= 0.09 * hill((c.au - p.eye_x) / 0.3, (c.v - p.eye_y) / 0.2)
  apple = 0.05 + 0.1 * p.au6 + 0.07 * p.au12
  lift = 0.36 - 0.08 * p.au6
  height += apple * hill((c.au - 0.4) / 0.27, (c.v - lift) / 0.22)
  height += 0.06 * hill(c.u / 0.25, (c.v - 0.88 - 0.1 * p.au26) / 0.16)
  height += 0.04 * hill(c.u / 0.36, (c.v - p.mouth_y) / 0.2)
  frown = 0.06 * p.au4 * hill((c.au - 0.2) / 0.2, (c.v - p.brow_y) / 0.14)
  return height + frown


def _head(c: Canvas, p: SimpleNamespace) -> Pixels:
  """Draws ears and the shaded head; returns the head's mask."""
  chin = 1 + 0.13 * p.au26 - 0.03 * p.au17
  low, high = np.maximum(c.y, 0), np.minimum(c.y, 0)
  jaw = blob(c.x, low, p.width, chin, p.jaw)
  skull = blob(c.x, high, p.width, 1.0, 0.25)
  head = c.cover(np.where(c.y > 0, jaw, skull))

  height = _relief(c, p)
  step = c.i[0, 1, 0] - c.i[0, 0, 0]
  down, right = np.gradient(height, step, axis=(1, 2))
  slope = np.sqrt(1 + down * down + right * right)
  facing = (p.light_z - right * p.light_x - down * p.light_y) / slope
  light = 0.42 + 0.6 * np.clip(facing, 0, 1.25)
  ears = ellipse(np.abs(c.x) - p.width - 0.02, c.y - 0.06, 0.1, 0.2 * p.ears)
  c.lay(p.skin * (0.75 + 0.15 * p.light_x * np.sign(c.x)), c.cover(ears))
  c.lay(p.skin * light, head)
  return head


def _beard(c: Canvas, p: SimpleNamespace, head: Pixels) -> None:
  face = blob(c.u, c.v - 0.16, p.width * 0.8, 0.42, 0.5)
  full = c.cover(-face, 0.12) * np.clip((c.v - 0.02) * 4, 0, 1)
  lip = p.mouth_y - 0.13 - 0.05 * p.au10 - 0.04 * p.au26 + 0.25 * c.au * c.au
  whiskers = hill(c.u / 0.34, (c.v - lip) / 0.09)
  full *= np.where(p.beard > 0.9, head * 0.85, head * 0.3) * (p.beard > 0.76)
  moustache = (p.beard > 0.86) | (p.beard < 0.07)
  texture = 1 + 0.15 * wave(c.u * 9) * wave(c.v * 7)
  shade = (0.25 * p.hair + 0.2 * p.skin) * texture
  c.lay(shade, full)
  c.lay(shade, np.clip(1.8 * whiskers * moustache, 0, 1) * head)


def _folds(c: Canvas, p: SimpleNamespace, head: Pixels) -> None:
  """Draws the furrows of the skin."""
  deep = 0.35 + 0.65 * p.age
  forehead = wave((c.v + 0.1 * c.u * c.u) * 7.5) * 0.5 + 0.5
  raised = np.maximum(p.au1, p.au2) * deep
  where = hill(c.u / 0.55, (c.v + 0.58) / 0.2)
  lines = 0.4 * raised * forehead * where
  lines += (0.6 * p.au4 + 0.3 * p.au9) * hill(
    (c.au - 0.065) / 0.05, (c.v - p.brow_y - 0.03) / 0.14
  )
  bridge = wave(c.v * 9) * 0.5 + 0.5
  lines += p.au9 * bridge * 0.75 * hill(c.u / 0.2, (c.v + 0.02) / 0.17)
  # From the wings of the nose to the corners of the mouth.
  t = np.clip((c.v - p.nose_y + 0.06) / 0.42, 0, 1)
  cheek = 0.17 + 0.26 * t + 0.05 * p.au12 + 0.05 * p.au9
  strength = 0.06 + 0.14 * p.age + 0.42 * p.au12 + 0.6 * p.au9 + 0.5 * p.au10
  lines += 0.62 * strength * hill((c.au - cheek) / 0.065, (t - 0.45) / 0.56)
  crow = wave((c.v - p.eye_y) * 8 + 0.5) * 0.5 + 0.5
  lines += (
    0.5
    * p.au6
    * deep
    * crow
    * hill((c.au - p.eye_x - 0.3) / 0.12, (c.v - p.eye_y) / 0.16)
  )
  lines += 0.3 * p.au17 * hill(c.u / 0.16, (c.v - 0.83) / 0.07)
  lines += (
    0.25
    * p.age
    * hill((c.au - p.eye_x + 0.03) / 0.2, (c.v - p.eye_y - 0.19) / 0.05)
  )
  c.darken(lines * head)


def _nose(c: Canvas, p: SimpleNamespace) -> None:
  tip = p.nose_y - 0.05 * p.au9
  wide = p.nose_width * (1 + 0.22 * p.au9 + 0.08 * p.au12)
  under = hill(c.u / (wide * 1.3), (c.v - tip - 0.06) / 0.06)
  c.darken(0.42 * under)
  wing = hill((c.au - wide) / 0.05, (c.v - tip + 0.01) / 0.1)
  c.darken((0.28 + 0.3 * p.au9) * wing)
  nostril = ellipse(
    c.au - 0.55 * wide,
    c.v - tip - 0.035,
    0.052 + 0.01 * p.au9,
    0.027,
  )
  c.lay(0.16 * p.skin, 0.85 * c.cover(nostril))
  shine = hill((c.u - 0.04 * p.light_x) / 0.06, (c.v - tip + 0.07) / 0.08)
  c.lay(1.0, 0.22 * shine)


def _mouth(c: Canvas, p: SimpleNamespace) -> None:
  wide = p.mouth_width * (
    1
    + 0.32 * p.au12
    + 0.3 * p.au20
    - 0.12 * p.au24
    - 0.3 * p.au26
    + 0.22 * p.au12 * p.au26
  )
  t = c.u / wide
  tt = np.minimum(t * t, 1.2)
  arch = np.maximum(1 - tt, 0)
  # The shape of the opening: round for a dropped jaw, square when stretched.
  ball, box = np.sqrt(arch), np.maximum(1 - tt * tt, 0)
  free = np.clip(p.au26 * (1 - p.au12), 0, 1)
  shape = arch + (ball - arch) * free + (box - arch) * p.au20 * (1 - free)
  corners = 0.15 * p.au15 - 0.19 * p.au12 + 0.04 * p.au20 + 0.04 * p.au10
  corners = corners + p.smirk * t
  level = p.mouth_y + 0.05 * p.au26 + 0.06 * p.au12 - 0.05 * p.au10
  level = level - 0.05 * p.au17 * arch
  middle = level + corners * tt
  gape = 0.09 * p.au25 + 0.2 * p.au26
  top = middle - shape * (0.35 * gape + 0.03 * p.au10 - 0.02 * p.au12)
  bottom = middle + shape * (0.9 * gape + 0.05 * p.au12 * p.au25)

  steep = np.sqrt(1 + (2 * corners * t / wide) * (2 * corners * t / wide))
  plump = p.lips * (1 - 0.7 * p.au24) * (1 - 0.3 * p.au12 - 0.35 * p.au20)
  bow = 1 - 0.35 * hill(c.u / 0.07)
  upper = top - plump * 0.75 * ball * bow * (1 - 0.25 * p.au10)
  lower = bottom + plump * ball * (1 + 0.25 * p.au17)
  outside = np.abs(c.u) - wide
  lip = np.maximum(np.maximum(upper - c.v, c.v - lower) / steep, outside)
  shade = p.skin * np.where(c.v < middle, p.lip_shade - 0.1, p.lip_shade)
  c.lay(shade, c.cover(lip, 0.03))
  shine = hill(c.u / (0.5 * wide), (c.v - bottom - 0.5 * plump) / 0.035)
  c.lay(0.9, 0.22 * shine)

  inner = np.maximum(np.maximum(top - c.v, c.v - bottom) / steep, outside)
  opening = c.cover(inner) * np.clip((bottom - top) / 0.05, 0, 1)
  c.lay(0.07, opening)
  tongue = ellipse(c.u, c.v - bottom - 0.02, wide * 0.6, 0.09)
  c.lay(0.33, 0.8 * opening * c.cover(tongue, 0.04))
  row = top + p.teeth * (0.035 + 0.8 * gape) * shape - c.v
  c.lay(0.9, opening * c.cover(-row) * np.clip(p.teeth * 3, 0, 1))
  bite = (c.v - (top + bottom) / 2) / 0.022
  c.darken(0.5 * opening * hill(bite) * p.au10 * p.au25)
  # The line between closed lips, and the corners' shadow.
  line = np.maximum(np.abs(c.v - middle) / steep - 0.016, outside - 0.02)
  c.darken(0.7 * c.cover(line, 0.02) * (1 - opening))
  side = 0.2 + 0.3 * (p.au12 + p.au15 + p.au24)
  c.darken(side * hill((c.au - wide) / 0.08, (c.v - level - corners) / 0.07))
  pout = hill(c.u / (0.6 * wide), (c.v - lower - 0.05) / 0.05)
  c.darken(0.3 * pout)


def _eyes(c: Canvas, p: SimpleNamespace) -> None:
  t = (c.au - p.eye_x) / p.eye_width
  arch = np.maximum(1 - t * t, 0)
  v = c.v - p.eye_y + p.eye_slant * t
  wide = 1 + 0.55 * p.au5 - 0.35 * p.au7 - 0.5 * p.au43 - 0.3 * p.au6
  press = 0.07 * p.au4 * (1 - t) * (1 - 0.7 * p.au1)  # under the brow
  droop = 0.06 * p.au1 * p.au43 * (1 + t)
  top = arch * (press + droop - p.eye_height * np.maximum(wide, 0.1))
  raise_low = 1 + 0.15 * p.au5 - 0.6 * p.au7 - 1.0 * p.au6 - 0.3 * p.au9
  bottom = arch * 0.65 * p.eye_height * raise_low
  bottom = np.maximum(bottom, top)

  opening = np.maximum(np.maximum(top - v, v - bottom), np.abs(t) - 1)
  open_ = c.cover(opening) * np.clip((bottom - top) / 0.04, 0, 1)
  white = 0.93 - 0.25 * hill((v - top) / 0.08)
  c.lay(white, open_)
  x, y = c.au - p.eye_x - c.right * p.gaze_x, v - p.gaze_y
  c.lay(p.iris, open_ * c.cover(ellipse(x, y, p.iris_size, p.iris_size)))
  pupil = p.iris_size * 0.52
  c.lay(0.04, open_ * c.cover(ellipse(x, y, pupil, pupil)))
  glint = hill((x * c.right + 0.035) / 0.045, (y + 0.04) / 0.045)
  c.lay(1.0, open_ * glint)

  width = np.abs(t) - 1.08
  lash = np.maximum(np.abs(v - top + 0.008) - p.lashes, width)
  c.darken(0.85 * c.cover(lash, 0.01))
  below = np.maximum(np.abs(v - bottom) - 0.008, width + 0.12)
  c.darken((0.35 + 0.25 * p.au6) * c.cover(below, 0.02))
  crease = (v - top * 1.15 + 0.075) / 0.035
  c.darken(0.3 * hill(crease) * (arch > 0.1))
  bag = (v - bottom - 0.085 + 0.03 * (1 - arch)) / 0.035
  c.darken((0.1 + 0.4 * p.au6 + 0.25 * p.au7) * hill(bag, t))


def _brows(c: Canvas, p: SimpleNamespace) -> None:
  start = p.eye_x - 0.21 - 0.07 * p.au4
  t = (c.au - start) / 0.46  # 0 at the inner end, 1 at the outer
  s = np.clip(t, 0, 1)
  inner, outer = (1 - s) * (1 - s), s * (2 - s)
  lift = 0.2 * p.au1 * inner + 0.17 * p.au2 * outer
  # Alone, drawn-together brows sink; raised inner ends resist it.
  sink = p.au4 * (0.16 * inner * (1 - 0.8 * p.au1) + 0.05)
  sink = sink + 0.06 * p.au9 * inner + 0.02 * p.au6
  bend = p.brow_arch * 4 * (s - 0.45) * (s - 0.45)
  y = p.brow_y - lift + sink + bend - 0.03 * c.right * p.quirk
  thick = p.brow_thick * (1 - 0.6 * s * s)
  ends = np.maximum(-t, t - 1) * 0.46
  brow = np.maximum(np.abs(c.v - y) - thick, ends)
  bristle = 1 - 0.2 * (wave(c.au * 12 + c.v * 6) * 0.5 + 0.5)
  c.lay(p.brow * p.skin, c.cover(brow, 0.025) * bristle)
