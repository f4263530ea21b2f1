"""Surroundings of a drawn face: wall, clothes, hair, glasses, occluders."""

from types import SimpleNamespace

import numpy as np

from fer_jax.data.datasets.synthetic_canvas import (
  Canvas,
  Pixels,
  blob,
  capsule,
  ellipse,
  hill,
  wave,
)


def background(c: Canvas, p: SimpleNamespace) -> None:
  """Draws the wall: plain, striped, or with a glow of light."""
  c.image += p.wall + p.wall_right * c.j + p.wall_down * c.i
  stripes = wave(c.j * p.stripes + c.i * p.stripes_slant + p.left)
  c.image += 0.07 * stripes * (p.wall_kind < 0.3)
  glow = hill((c.j - p.wall_right * 3) / 0.9, (c.i + 0.5) / 0.9)
  c.image += 0.2 * glow * (p.wall_kind > 0.6)
  neck = blob(c.x, c.y - 1.0, 0.62 * p.width, 0.8, 0.5)
  shadow = 0.55 + 0.35 * np.clip((c.y - 0.9) * 1.6, 0, 1)
  c.lay(p.skin * shadow, c.cover(neck))
  shoulders = blob(c.x, c.y - 2.05, 1.35, 0.8, 0.4)
  c.lay(p.cloth + 0.1 * p.light_x * c.x, c.cover(shoulders))


def hair_behind(c: Canvas, p: SimpleNamespace) -> Pixels:
  """Draws the hair around the head; returns the mask of hair."""
  bald = p.hair_style < 0.1
  long = p.hair_style > 0.58
  frizz = 0.05 * wave(c.x * 2.6 + 0.2) * wave(c.y * 2.6 + p.parting)
  frizz = frizz * (p.hair_texture > 0.6)
  volume = p.hair_volume * ~bald
  crown = ellipse(
    c.x, c.y + 0.14, p.width + 0.03 + 0.45 * volume, 0.92 + volume
  )
  fall = blob(c.x, c.y - 0.15, p.width + 0.06 + volume, p.hair_length, 0.7)
  outline = np.where(long, np.minimum(crown, fall), crown) + frizz
  area = c.cover(outline) * ~bald
  c.lay(0.75 * _strands(c, p), area * (long | (c.y < 0.1)))
  return area


def hair_in_front(c: Canvas, p: SimpleNamespace, hair: Pixels) -> None:
  """Draws hair over the head, except a window for the face."""
  fringe = (p.hair_style > 0.4) & (p.hair_style < 0.75)
  long = p.hair_style > 0.58
  window = blob(c.u, c.v - 0.3, 0.93 * p.width, p.hairline + 0.3, 0.65)
  sweep = p.parting * (c.u - 0.2 * np.sign(p.parting))
  jag = 0.03 * wave(c.u * 3.1)
  cut = -p.hairline + 0.16 - sweep + jag - c.v
  free = np.where(fringe, np.maximum(window, cut), window)
  locks = c.cover(-free, 0.02) * hair
  locks = locks * np.where(long, 1.0, c.cover(c.v - 0.02, 0.08))
  # Hair throws a little shade on the skin beside it.
  c.darken(0.35 * hill((free + 0.02) / 0.1) * hair * (1 - locks))
  c.lay(_strands(c, p), locks)


def _strands(c: Canvas, p: SimpleNamespace) -> Pixels:
  """Returns the shade of hair: strands from the parting, and a sheen."""
  fan = (c.u - 0.5 * p.parting) / np.maximum(c.v + 1.7, 0.3)
  strand = wave(fan * p.strands) + 0.5 * wave(fan * p.strands * 1.6 + 0.3)
  lit = np.clip(0.6 + 0.8 * c.x * p.light_x - 0.5 * c.y, 0, 1.2)
  x, y = c.x - 0.5 * p.light_x, c.y + 0.78 + 0.03 * strand
  sheen = hill(x / 0.5, (y - 0.5 * c.x * c.x) / 0.24)
  return p.hair * (0.7 + 0.3 * lit + 0.06 * strand + 0.4 * sheen)


def glasses(c: Canvas, p: SimpleNamespace) -> None:
  """Draws glasses on some of the faces."""
  worn = p.glasses < 0.16
  x, y = c.au - p.eye_x - 0.01, c.v - p.eye_y - 0.02
  rim = blob(x, y, 0.27, 0.215, np.clip(p.frame * 2, 0, 1))
  bridge = np.maximum(np.abs(c.v - p.eye_y + 0.03) - 0.005, c.au - 0.1)
  arms = np.maximum(
    np.abs(c.v - p.eye_y + 0.05) - 0.005,
    np.maximum(p.eye_x + 0.27 - c.au, c.au - p.width),
  )
  frame = np.minimum(np.minimum(np.abs(rim) - 0.02, bridge), arms)
  c.lay(0.75, 0.12 * c.cover(rim) * worn)
  gleam = hill((x * c.right + y + 0.1) / 0.06) * c.cover(rim + 0.05)
  c.lay(1.0, 0.35 * gleam * worn)
  c.lay(p.frame * 0.4, worn * c.cover(frame))


def occlusion(c: Canvas, p: SimpleNamespace) -> None:
  """Draws an occluder: a hand, a lock of hair or a bar."""
  kind = p.occluder
  hand = kind < 0.05
  lean = p.hide_slant
  reach = 0.25 + 0.3 * p.hide_at
  for finger in range(4):
    at = p.hide_at * 0.8 + 0.17 * (finger - 1.5) + 0.3 * np.sign(p.hide_at)
    tip = reach + 0.06 * (finger in (1, 2))
    d = capsule(c.x, c.y, at + 0.4 * lean, 1.7, at, 0.9 - tip, 0.085)
    inside = np.clip(1 + d / 0.085, 0, 1)
    shade = p.skin * (0.98 - 0.4 * inside * inside)
    c.lay(0.3 * p.skin, 0.5 * c.cover(d - 0.02) * hand)
    c.lay(shade, hand * c.cover(d))
  lock = (kind > 0.05) & (kind < 0.1)
  path = p.hide_at + 0.45 * (c.y + 0.7) * (c.y + 0.7) * lean
  strand = np.maximum(np.abs(c.x - path) - 0.1 * (1 - 0.5 * c.y), c.y - 0.45)
  gloss = 1 + 0.25 * wave((c.x - path) * 7)
  c.lay(p.hair * gloss, lock * c.cover(strand))
  bar = (kind > 0.1) & (kind < 0.13)
  d = (
    np.abs(
      c.i * (lean > 0) + c.j * (lean <= 0) + 0.4 * lean * c.i - 0.7 * p.hide_at
    )
    - 0.09
  )
  c.lay(p.cloth, bar * c.cover(d * p.size))
