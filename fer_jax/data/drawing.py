"""How a face is drawn: a portrait with shading, whole batches at once.

Every shape is a signed distance on the pixel grid, covered softly at its edge,
so that any side length gives smooth outlines without supersampling. A face
lives in two frames: the head's (`x`, `y`: turned, scaled and moved into the
picture) and the surface's (`u`, `v`: also shifted by yaw and pitch, most where
the face is nearest), in which the middle of the face is (0, 0), the chin at
v = 1 and the side of the head at u = 0.75 or so.

Only `+ - * /`, `sqrt` and comparisons touch a pixel. IEEE 754 rounds all of
these in one way, which makes the same bytes on every machine; `exp` and `sin`
differ from one library to the next.
"""

from types import SimpleNamespace

import numpy as np
from jaxtyping import Float32

Pixels = Float32[np.ndarray, "n side side"]
Values = Pixels | float


def paint(p: SimpleNamespace, side: int) -> Pixels:
  """Paints faces, without the camera's blur and noise.

  Args:
    p: float32 arrays `[n 1 1]`: looks, pose and surroundings as named in
      `synthetic_faces.RANGES`, and intensities 0..1 of facial action units,
      `au1`, `au2`, ...
    side: height and width in pixels.

  Returns:
    Grey images, about 0 (black) to 1 (white).
  """
  c = _Canvas(p, side)
  _background(c, p)
  hair = _hair_behind(c, p)
  head = _head(c, p)
  _beard(c, p, head)
  _folds(c, p, head)
  _nose(c, p)
  _mouth(c, p)
  _eyes(c, p)
  _brows(c, p)
  _hair_in_front(c, p, hair)
  _glasses(c, p)
  _occlusion(c, p)
  return c.image


class _Canvas:
  """The picture so far and its coordinates, all `[n side side]` float32."""

  def __init__(self, p: SimpleNamespace, side: int):
    grid = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
    self.i, self.j = grid[None, :, None], grid[None, None, :]
    # A turn by tan(roll / 2): its cosine and sine without trigonometry.
    square = p.roll * p.roll
    cos, sin = (1 - square) / (1 + square), 2 * p.roll / (1 + square)
    right, down = self.j - p.left, self.i - p.top
    self.x = (right * cos + down * sin) / p.size
    self.y = (down * cos - right * sin) / p.size
    xx, yy = self.x * self.x, self.y * self.y
    self.u = self.x - p.yaw * (1 - 0.9 * xx - 0.3 * yy)
    self.v = self.y - p.pitch * (1 - 0.5 * xx - 0.6 * yy)
    self.au = np.abs(self.u)  # Both halves of a face in one stroke.
    self.right = np.sign(self.u)
    self.pixel = (2 / side) / p.size
    self.image = np.zeros(self.x.shape, np.float32)
    self.hair = _strands(self, p)

  def cover(self, distance: Pixels, softness: float = 0.0) -> Pixels:
    """Returns how much of a pixel is inside (distance < 0), 0..1."""
    return np.clip(0.5 - distance / (self.pixel + softness), 0, 1)

  def lay(self, shade: Values, cover: Pixels) -> None:
    """Lays a shade over the picture where `cover` says."""
    self.image += (shade - self.image) * cover

  def darken(self, amount: Pixels) -> None:
    """Takes a fraction of the light away."""
    self.image *= 1 - np.clip(amount, 0, 0.9)


def _hill(*axes: Pixels) -> Pixels:
  """Returns a smooth hill: 1 where all axes are 0, 0 beyond radius 1."""
  rest = 1 - sum(axis * axis for axis in axes)
  rest = np.maximum(rest, 0)
  return rest * rest


def _ellipse(x: Pixels, y: Pixels, rx: Values, ry: Values) -> Pixels:
  """Returns about the distance to an ellipse: exact on its outline."""
  r = np.sqrt((x / rx) * (x / rx) + (y / ry) * (y / ry))
  return (r - 1) * np.minimum(rx, ry, dtype=np.float32)


def _blob(
  x: Pixels, y: Pixels, rx: Values, ry: Values, square: Values
) -> Pixels:
  """As `_ellipse`, the more like a rectangle the nearer `square` is to 1."""
  a, b = (x / rx) * (x / rx), (y / ry) * (y / ry)
  r2, r4 = np.sqrt(a + b), np.sqrt(np.sqrt(a * a + b * b))
  r = r2 + (r4 - r2) * square
  return (r - 1) * np.minimum(rx, ry, dtype=np.float32)


def _capsule(x, y, x0, y0, x1, y1, radius) -> Pixels:
  """Returns the distance to a thick line with round ends."""
  dx, dy = x1 - x0, y1 - y0
  t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
  ex, ey = x - x0 - t * dx, y - y0 - t * dy
  return np.sqrt(ex * ex + ey * ey) - radius


def _wave(x: Pixels) -> Pixels:
  """Returns a smooth wave of period 1, between -1 and 1."""
  t = 2 * np.abs(x - np.floor(x) - 0.5)  # 0..1..0
  return (t * t * (3 - 2 * t)) * 2 - 1


def _background(c: _Canvas, p: SimpleNamespace) -> None:
  c.image += p.wall + p.wall_right * c.j + p.wall_down * c.i
  stripes = _wave(c.j * p.stripes + c.i * p.stripes_slant + p.left)
  c.image += 0.07 * stripes * (p.wall_kind < 0.3)
  glow = _hill((c.j - p.wall_right * 3) / 0.9, (c.i + 0.5) / 0.9)
  c.image += 0.2 * glow * (p.wall_kind > 0.6)
  neck = _blob(c.x, c.y - 1.0, 0.62 * p.width, 0.8, 0.5)
  shadow = 0.55 + 0.35 * np.clip((c.y - 0.9) * 1.6, 0, 1)
  c.lay(p.skin * shadow, c.cover(neck))
  shoulders = _blob(c.x, c.y - 2.05, 1.35, 0.8, 0.4)
  c.lay(p.cloth + 0.1 * p.light_x * c.x, c.cover(shoulders))


def _hair_behind(c: _Canvas, p: SimpleNamespace) -> Pixels:
  """Draws the hair around the head; returns where hair may be."""
  bald = p.hair_style < 0.1
  long = p.hair_style > 0.58
  frizz = 0.05 * _wave(c.x * 2.6 + 0.2) * _wave(c.y * 2.6 + p.parting)
  frizz = frizz * (p.hair_texture > 0.6)
  volume = p.hair_volume * ~bald
  crown = _ellipse(
    c.x, c.y + 0.14, p.width + 0.03 + 0.45 * volume, 0.92 + volume
  )
  fall = _blob(c.x, c.y - 0.15, p.width + 0.06 + volume, p.hair_length, 0.7)
  outline = np.where(long, np.minimum(crown, fall), crown) + frizz
  area = c.cover(outline) * ~bald
  c.lay(0.75 * c.hair, area * (long | (c.y < 0.1)))
  return area


def _relief(c: _Canvas, p: SimpleNamespace) -> Pixels:
  """Returns the height of the face's surface, which the light falls on."""
  rx, ry = c.x / (p.width * 1.1), c.y / 1.2
  height = 0.75 * np.sqrt(np.maximum(1 - rx * rx - ry * ry, 0.02))
  tip = p.nose_y - 0.03 * p.au9
  along = np.clip((c.v + 0.2) / (tip + 0.2), 0, 1)
  breadth = 0.09 + p.nose_width * along * 0.6
  below = np.clip(1 - (c.v - tip) / 0.11, 0, 1)
  height += 0.24 * p.nose_length * along * below * _hill(c.u / (breadth + 0.08))
  height -= 0.09 * _hill((c.au - p.eye_x) / 0.3, (c.v - p.eye_y) / 0.2)
  apple = 0.05 + 0.1 * p.au6 + 0.07 * p.au12
  lift = 0.36 - 0.08 * p.au6
  height += apple * _hill((c.au - 0.4) / 0.27, (c.v - lift) / 0.22)
  height += 0.06 * _hill(c.u / 0.25, (c.v - 0.88 - 0.1 * p.au26) / 0.16)
  height += 0.04 * _hill(c.u / 0.36, (c.v - p.mouth_y) / 0.2)
  frown = 0.06 * p.au4 * _hill((c.au - 0.2) / 0.2, (c.v - p.brow_y) / 0.14)
  return height + frown


def _head(c: _Canvas, p: SimpleNamespace) -> Pixels:
  """Draws ears and the shaded head; returns where the head is."""
  chin = 1 + 0.13 * p.au26 - 0.03 * p.au17
  low, high = np.maximum(c.y, 0), np.minimum(c.y, 0)
  jaw = _blob(c.x, low, p.width, chin, p.jaw)
  skull = _blob(c.x, high, p.width, 1.0, 0.25)
  head = c.cover(np.where(c.y > 0, jaw, skull))

  height = _relief(c, p)
  step = c.i[0, 1, 0] - c.i[0, 0, 0]
  down, right = np.gradient(height, step, axis=(1, 2))
  slope = np.sqrt(1 + down * down + right * right)
  facing = (p.light_z - right * p.light_x - down * p.light_y) / slope
  light = 0.42 + 0.6 * np.clip(facing, 0, 1.25)
  ears = _ellipse(np.abs(c.x) - p.width - 0.02, c.y - 0.06, 0.1, 0.2 * p.ears)
  c.lay(p.skin * (0.75 + 0.15 * p.light_x * np.sign(c.x)), c.cover(ears))
  c.lay(p.skin * light, head)
  return head


def _beard(c: _Canvas, p: SimpleNamespace, head: Pixels) -> None:
  face = _blob(c.u, c.v - 0.16, p.width * 0.8, 0.42, 0.5)
  full = c.cover(-face, 0.12) * np.clip((c.v - 0.02) * 4, 0, 1)
  lip = p.mouth_y - 0.13 - 0.05 * p.au10 - 0.04 * p.au26 + 0.25 * c.au * c.au
  whiskers = _hill(c.u / 0.34, (c.v - lip) / 0.09)
  full *= np.where(p.beard > 0.9, head * 0.85, head * 0.3) * (p.beard > 0.76)
  moustache = (p.beard > 0.86) | (p.beard < 0.07)
  texture = 1 + 0.15 * _wave(c.u * 9) * _wave(c.v * 7)
  shade = (0.25 * p.hair + 0.2 * p.skin) * texture
  c.lay(shade, full)
  c.lay(shade, np.clip(1.8 * whiskers * moustache, 0, 1) * head)


def _folds(c: _Canvas, p: SimpleNamespace, head: Pixels) -> None:
  """Draws the furrows that muscles fold into the skin."""
  deep = 0.35 + 0.65 * p.age
  forehead = _wave((c.v + 0.1 * c.u * c.u) * 7.5) * 0.5 + 0.5
  raised = np.maximum(p.au1, p.au2) * deep
  where = _hill(c.u / 0.55, (c.v + 0.58) / 0.2)
  lines = 0.4 * raised * forehead * where
  lines += (0.6 * p.au4 + 0.3 * p.au9) * _hill(
    (c.au - 0.065) / 0.05, (c.v - p.brow_y - 0.03) / 0.14
  )
  bridge = _wave(c.v * 9) * 0.5 + 0.5
  lines += p.au9 * bridge * 0.75 * _hill(c.u / 0.2, (c.v + 0.02) / 0.17)
  # From the wings of the nose to the corners of the mouth.
  t = np.clip((c.v - p.nose_y + 0.06) / 0.42, 0, 1)
  cheek = 0.17 + 0.26 * t + 0.05 * p.au12 + 0.05 * p.au9
  strength = 0.06 + 0.14 * p.age + 0.42 * p.au12 + 0.6 * p.au9 + 0.5 * p.au10
  lines += 0.62 * strength * _hill((c.au - cheek) / 0.065, (t - 0.45) / 0.56)
  crow = _wave((c.v - p.eye_y) * 8 + 0.5) * 0.5 + 0.5
  lines += (
    0.5
    * p.au6
    * deep
    * crow
    * _hill((c.au - p.eye_x - 0.3) / 0.12, (c.v - p.eye_y) / 0.16)
  )
  lines += 0.3 * p.au17 * _hill(c.u / 0.16, (c.v - 0.83) / 0.07)
  lines += (
    0.25
    * p.age
    * _hill((c.au - p.eye_x + 0.03) / 0.2, (c.v - p.eye_y - 0.19) / 0.05)
  )
  c.darken(lines * head)


def _nose(c: _Canvas, p: SimpleNamespace) -> None:
  tip = p.nose_y - 0.05 * p.au9
  wide = p.nose_width * (1 + 0.22 * p.au9 + 0.08 * p.au12)
  under = _hill(c.u / (wide * 1.3), (c.v - tip - 0.06) / 0.06)
  c.darken(0.42 * under)
  wing = _hill((c.au - wide) / 0.05, (c.v - tip + 0.01) / 0.1)
  c.darken((0.28 + 0.3 * p.au9) * wing)
  nostril = _ellipse(
    c.au - 0.55 * wide,
    c.v - tip - 0.035,
    0.052 + 0.01 * p.au9,
    0.027,
  )
  c.lay(0.16 * p.skin, 0.85 * c.cover(nostril))
  shine = _hill((c.u - 0.04 * p.light_x) / 0.06, (c.v - tip + 0.07) / 0.08)
  c.lay(1.0, 0.22 * shine)


def _mouth(c: _Canvas, p: SimpleNamespace) -> None:
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
  bow = 1 - 0.35 * _hill(c.u / 0.07)
  upper = top - plump * 0.75 * ball * bow * (1 - 0.25 * p.au10)
  lower = bottom + plump * ball * (1 + 0.25 * p.au17)
  outside = np.abs(c.u) - wide
  lip = np.maximum(np.maximum(upper - c.v, c.v - lower) / steep, outside)
  shade = p.skin * np.where(c.v < middle, p.lip_shade - 0.1, p.lip_shade)
  c.lay(shade, c.cover(lip, 0.03))
  shine = _hill(c.u / (0.5 * wide), (c.v - bottom - 0.5 * plump) / 0.035)
  c.lay(0.9, 0.22 * shine)

  inner = np.maximum(np.maximum(top - c.v, c.v - bottom) / steep, outside)
  opening = c.cover(inner) * np.clip((bottom - top) / 0.05, 0, 1)
  c.lay(0.07, opening)
  tongue = _ellipse(c.u, c.v - bottom - 0.02, wide * 0.6, 0.09)
  c.lay(0.33, 0.8 * opening * c.cover(tongue, 0.04))
  row = top + p.teeth * (0.035 + 0.8 * gape) * shape - c.v
  c.lay(0.9, opening * c.cover(-row) * np.clip(p.teeth * 3, 0, 1))
  bite = (c.v - (top + bottom) / 2) / 0.022
  c.darken(0.5 * opening * _hill(bite) * p.au10 * p.au25)
  # The line between closed lips, and the corners' shadow.
  line = np.maximum(np.abs(c.v - middle) / steep - 0.016, outside - 0.02)
  c.darken(0.7 * c.cover(line, 0.02) * (1 - opening))
  side = 0.2 + 0.3 * (p.au12 + p.au15 + p.au24)
  c.darken(side * _hill((c.au - wide) / 0.08, (c.v - level - corners) / 0.07))
  pout = _hill(c.u / (0.6 * wide), (c.v - lower - 0.05) / 0.05)
  c.darken(0.3 * pout)


def _eyes(c: _Canvas, p: SimpleNamespace) -> None:
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
  white = 0.93 - 0.25 * _hill((v - top) / 0.08)
  c.lay(white, open_)
  x, y = c.au - p.eye_x - c.right * p.gaze_x, v - p.gaze_y
  c.lay(p.iris, open_ * c.cover(_ellipse(x, y, p.iris_size, p.iris_size)))
  pupil = p.iris_size * 0.52
  c.lay(0.04, open_ * c.cover(_ellipse(x, y, pupil, pupil)))
  glint = _hill((x * c.right + 0.035) / 0.045, (y + 0.04) / 0.045)
  c.lay(1.0, open_ * glint)

  width = np.abs(t) - 1.08
  lash = np.maximum(np.abs(v - top + 0.008) - p.lashes, width)
  c.darken(0.85 * c.cover(lash, 0.01))
  below = np.maximum(np.abs(v - bottom) - 0.008, width + 0.12)
  c.darken((0.35 + 0.25 * p.au6) * c.cover(below, 0.02))
  crease = (v - top * 1.15 + 0.075) / 0.035
  c.darken(0.3 * _hill(crease) * (arch > 0.1))
  bag = (v - bottom - 0.085 + 0.03 * (1 - arch)) / 0.035
  c.darken((0.1 + 0.4 * p.au6 + 0.25 * p.au7) * _hill(bag, t))


def _brows(c: _Canvas, p: SimpleNamespace) -> None:
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
  bristle = 1 - 0.2 * (_wave(c.au * 12 + c.v * 6) * 0.5 + 0.5)
  c.lay(p.brow * p.skin, c.cover(brow, 0.025) * bristle)


def _hair_in_front(c: _Canvas, p: SimpleNamespace, hair: Pixels) -> None:
  """Draws hair over the head: all but a window for the face."""
  fringe = (p.hair_style > 0.4) & (p.hair_style < 0.75)
  long = p.hair_style > 0.58
  window = _blob(c.u, c.v - 0.3, 0.93 * p.width, p.hairline + 0.3, 0.65)
  sweep = p.parting * (c.u - 0.2 * np.sign(p.parting))
  jag = 0.03 * _wave(c.u * 3.1)
  cut = -p.hairline + 0.16 - sweep + jag - c.v
  free = np.where(fringe, np.maximum(window, cut), window)
  locks = c.cover(-free, 0.02) * hair
  locks = locks * np.where(long, 1.0, c.cover(c.v - 0.02, 0.08))
  # Hair throws a little shade on the skin beside it.
  c.darken(0.35 * _hill((free + 0.02) / 0.1) * hair * (1 - locks))
  c.lay(c.hair, locks)


def _strands(c: _Canvas, p: SimpleNamespace) -> Pixels:
  """Returns the shade of hair: strands from the parting, and a sheen."""
  fan = (c.u - 0.5 * p.parting) / np.maximum(c.v + 1.7, 0.3)
  strand = _wave(fan * p.strands) + 0.5 * _wave(fan * p.strands * 1.6 + 0.3)
  lit = np.clip(0.6 + 0.8 * c.x * p.light_x - 0.5 * c.y, 0, 1.2)
  x, y = c.x - 0.5 * p.light_x, c.y + 0.78 + 0.03 * strand
  sheen = _hill(x / 0.5, (y - 0.5 * c.x * c.x) / 0.24)
  return p.hair * (0.7 + 0.3 * lit + 0.06 * strand + 0.4 * sheen)


def _glasses(c: _Canvas, p: SimpleNamespace) -> None:
  worn = p.glasses < 0.16
  x, y = c.au - p.eye_x - 0.01, c.v - p.eye_y - 0.02
  rim = _blob(x, y, 0.27, 0.215, np.clip(p.frame * 2, 0, 1))
  bridge = np.maximum(np.abs(c.v - p.eye_y + 0.03) - 0.005, c.au - 0.1)
  arms = np.maximum(
    np.abs(c.v - p.eye_y + 0.05) - 0.005,
    np.maximum(p.eye_x + 0.27 - c.au, c.au - p.width),
  )
  frame = np.minimum(np.minimum(np.abs(rim) - 0.02, bridge), arms)
  c.lay(0.75, 0.12 * c.cover(rim) * worn)
  gleam = _hill((x * c.right + y + 0.1) / 0.06) * c.cover(rim + 0.05)
  c.lay(1.0, 0.35 * gleam * worn)
  c.lay(p.frame * 0.4, worn * c.cover(frame))


def _occlusion(c: _Canvas, p: SimpleNamespace) -> None:
  """Draws what may hide a part of the face: hand, lock of hair or bar."""
  kind = p.occluder
  hand = kind < 0.05
  lean = p.hide_slant
  reach = 0.25 + 0.3 * p.hide_at
  for finger in range(4):
    at = p.hide_at * 0.8 + 0.17 * (finger - 1.5) + 0.3 * np.sign(p.hide_at)
    tip = reach + 0.06 * (finger in (1, 2))
    d = _capsule(c.x, c.y, at + 0.4 * lean, 1.7, at, 0.9 - tip, 0.085)
    inside = np.clip(1 + d / 0.085, 0, 1)
    shade = p.skin * (0.98 - 0.4 * inside * inside)
    c.lay(0.3 * p.skin, 0.5 * c.cover(d - 0.02) * hand)
    c.lay(shade, hand * c.cover(d))
  lock = (kind > 0.05) & (kind < 0.1)
  path = p.hide_at + 0.45 * (c.y + 0.7) * (c.y + 0.7) * lean
  strand = np.maximum(np.abs(c.x - path) - 0.1 * (1 - 0.5 * c.y), c.y - 0.45)
  gloss = 1 + 0.25 * _wave((c.x - path) * 7)
  c.lay(p.hair * gloss, lock * c.cover(strand))
  bar = (kind > 0.1) & (kind < 0.13)
  d = (
    np.abs(
      c.i * (lean > 0) + c.j * (lean <= 0) + 0.4 * lean * c.i - 0.7 * p.hide_at
    )
    - 0.09
  )
  c.lay(p.cloth, bar * c.cover(d * p.size))
