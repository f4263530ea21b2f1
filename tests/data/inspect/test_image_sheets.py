"""Drawings of many images: what is shown, where, and that nothing is cut."""

import numpy as np
import pytest

from fer_jax.data.inspect.image_sheets import contact_sheet, group_sheet

NAMES = ("cat", "dog", "emu")


def _images(n, h=48, w=48, c=1):
  # Image i is all of grey 40 + i, so that the sheet tells which it shows.
  grey = np.arange(40, 40 + n, dtype=np.uint8)[:, None, None, None]
  return np.broadcast_to(grey, (n, h, w, c)).copy()


def _greys(sheet):
  """Returns the greys 40..200 that fill whole tiles of the sheet."""
  grey, count = np.unique(np.asarray(sheet)[..., 0], return_counts=True)
  return {int(g) for g, n in zip(grey, count, strict=True) if n >= 96 * 96}


def test_size_follows_classes_and_columns():
  images, targets = _images(12), np.arange(12) % 3
  few = contact_sheet(images.__getitem__, targets, NAMES, columns=2)
  more = contact_sheet(images.__getitem__, targets, NAMES, columns=4)
  assert more.width - few.width == 2 * 100  # Tile and gap.
  assert more.height == few.height
  two = contact_sheet(
    images[:8].__getitem__, targets[:8] % 2, NAMES[:2], columns=2
  )
  assert few.height - two.height == 100
  titled = contact_sheet(
    images.__getitem__, targets, NAMES, columns=4, title="Animals"
  )
  assert titled.height > more.height


def test_each_row_shows_its_class():
  targets = np.arange(12) % 3
  sheet = contact_sheet(_images(12).__getitem__, targets, NAMES, columns=4)
  pixels = np.asarray(sheet)[..., 0]
  for k in range(3):
    row = pixels[16 + k * 100 + 48, -16 - 396 :: 100][:4]
    assert {(int(grey) - 40) % 3 for grey in row} == {k}
    label = pixels[16 + k * 100 : 16 + k * 100 + 96, : -16 - 396]
    assert label.min() < 60, "the class's name is missing"


def test_a_class_without_images_has_a_row():
  full = contact_sheet(
    _images(6).__getitem__, np.arange(6) % 3, NAMES, columns=2
  )
  sheet = contact_sheet(
    _images(6).__getitem__, np.zeros(6, int), NAMES, columns=2
  )
  assert sheet.height == full.height and len(_greys(sheet)) == 3  # And white.


def test_fewer_images_than_columns():
  sheet = contact_sheet(_images(3).__getitem__, np.arange(3), NAMES, columns=5)
  assert {40, 41, 42} <= _greys(sheet)


def test_seed_picks():
  images, targets = _images(60), np.arange(60) % 3
  first, again, other = (
    _greys(contact_sheet(images.__getitem__, targets, NAMES, columns=3, seed=s))
    for s in (0, 0, 9)
  )
  assert first == again != other


def test_votes_count_for_the_highest():
  votes = np.eye(3, dtype=np.float32)[np.arange(6) % 3] * 0.6 + 0.1
  sheets = [
    contact_sheet(_images(6).__getitem__, targets, NAMES)
    for targets in (votes, np.arange(6) % 3)
  ]
  assert sheets[0].tobytes() == sheets[1].tobytes()


def test_colour_and_pixels_stay_sharp():
  images = np.zeros((3, 24, 24, 3), np.uint8)
  images[:, ::2, :, 0] = 255
  sheet = contact_sheet(images.__getitem__, np.arange(3), NAMES, columns=1)
  tile = np.asarray(sheet)[16:112, -112:-16]
  assert set(map(tuple, tile.reshape(-1, 3))) == {(0, 0, 0), (255, 0, 0)}


def test_large_images_shrink():
  images = _images(3, 400, 200)
  sheet = contact_sheet(images.__getitem__, np.arange(3), NAMES, columns=1)
  tile = np.asarray(sheet)[16:112, -64:-16, 0]
  assert np.unique(tile).tolist() == [40]


def _ink_at_the_edge(sheet):
  pixels = np.asarray(sheet)
  edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
  return any((edge < 255).any() for edge in edges)


def test_long_names_widen_the_sheet():
  long = ("a class whose name is far longer than most, " * 3, *NAMES[1:])
  images, targets = _images(3), np.arange(3)
  few = contact_sheet(images.__getitem__, targets, NAMES, columns=1)
  more = contact_sheet(
    images.__getitem__, targets, long, columns=1, title="t" * 200
  )
  assert more.width > few.width + 800 and not _ink_at_the_edge(more)
  # The images stand right of the longest name.
  only = contact_sheet(images.__getitem__, targets, long, columns=1)
  left = np.asarray(only)[16:112, : -16 - 96, 0]
  assert (left[:, -16:] == 255).all() and (left[:, -60:] < 255).any()


def _group(name, *captions, start=40):
  images = _images(start - 40 + len(captions))[start - 40 :]
  return name, list(zip(images, captions, strict=True))


def test_groups_show_every_image():
  groups = [
    _group("one", "train 1: cat", "test 2: dog"),
    _group("two", "train 3: emu", start=42),
  ]
  sheet = group_sheet(groups, title="Copies")
  assert {40, 41, 42} <= _greys(sheet) and not _ink_at_the_edge(sheet)


def test_groups_wrap_at_the_width():
  groups = [_group(str(i), "train 1: cat") for i in range(7)]
  narrow, wide = (group_sheet(groups, width=w) for w in (300, 900))
  assert narrow.width <= 300 and wide.width <= 900
  assert narrow.height > 2 * wide.height


@pytest.mark.parametrize("place", ["title", "name", "caption"])
def test_long_texts_of_groups_widen_the_sheet(place):
  texts = {"title": "t", "name": "n", "caption": "c"}
  texts[place] = "W" * 150
  name, caption = texts["name"], texts["caption"]
  groups = [_group(name, caption), _group("n", "c")]
  sheet = group_sheet(groups, title=texts["title"], width=400)
  assert sheet.width > 1200 and not _ink_at_the_edge(sheet)


def test_many_lines_of_captions_do_not_meet_the_next_group():
  few = group_sheet([_group("a", "1"), _group("b", "2")], width=150)
  more = group_sheet([_group("a", "1\n2\n3"), _group("b", "2")], width=150)
  assert more.height - few.height == 2 * 18


def test_images_of_a_group_may_differ_in_shape():
  tall, colour = np.zeros((60, 30, 1), np.uint8), np.zeros((9, 9, 3), np.uint8)
  colour[..., 0] = 255
  sheet = np.asarray(group_sheet([("", [(tall, "1"), (colour, "2")])]))
  assert (sheet == (255, 0, 0)).all(-1).sum() == 90 * 90
  assert (sheet == (0, 0, 0)).all(-1).sum() >= 60 * 30


def test_no_groups_are_a_title():
  assert group_sheet([], title="None").height > 0
