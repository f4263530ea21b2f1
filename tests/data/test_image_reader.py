"""One picture in every form gives one array; everything else one error."""

import concurrent.futures
import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from fer_jax.data import image_arrays, image_reader
from fer_jax.errors import UserError


def picture(h=24, w=32):
  """Returns uint8 [h w 3], with no symmetry."""
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (h, w, 3), np.uint8)


def stored(image, suffix, **options):
  file = io.BytesIO()
  image.save(file, suffix, **options)
  return file.getvalue()


def forms(content, tmp_path, suffix="png"):
  """Returns a file's content in all forms a caller may have it in."""
  path = tmp_path / f"image.{suffix}"
  path.write_bytes(content)
  return [
    path,
    str(path),
    content,
    bytearray(content),
    io.BytesIO(content),
    io.BufferedReader(io.BytesIO(content)),
    Image.open(io.BytesIO(content)),
  ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_counts_in_every_form(tmp_path, orientation, kind):
  image = Image.fromarray(picture())
  exif = Image.Exif()
  exif[0x0112] = orientation
  content = stored(image, kind, exif=exif)
  turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
  }
  expected = turns[orientation](picture())
  for form in forms(content, tmp_path):
    found = image_reader.read(form, color=True)
    np.testing.assert_array_equal(found, expected)


def test_a_turn_counts_beside_odd_tags(tmp_path):
  # Little-endian, a table at byte 8 of two tags: orientation 6 as a number,
  # and the resolution as text.
  exif = struct.pack("<2sHIH", b"II", 42, 8, 2)
  exif += struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
  exif += struct.pack("<HHI4sI", 0x011A, 2, 2, b"x", 0)
  content = stored(Image.fromarray(picture()), "PNG", exif=b"Exif\0\0" + exif)
  for form in forms(content, tmp_path):
    found = image_reader.read(form, color=True)
    np.testing.assert_array_equal(found, np.rot90(picture(), -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # of opening it in the test
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"garbage", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_turns_nothing(tmp_path, kind, exif):
  image = Image.fromarray(picture())
  content = stored(image, kind, exif=b"Exif\0\0" + exif)
  expected = image_reader.read(stored(image, kind), color=True)
  for form in forms(content, tmp_path):
    found = image_reader.read(form, color=True)
    np.testing.assert_array_equal(found, expected)


def test_16_bits_are_reduced_alike(tmp_path):
  values = np.arange(0, 60_000, 100).astype(np.uint16).reshape(20, 30)
  expected = ((values.astype(int) + 128) // 257).astype(np.uint8)[..., None]
  content = stored(Image.fromarray(values), "PNG")
  for form in [*forms(content, tmp_path), values, values[..., None]]:
    np.testing.assert_array_equal(image_reader.read(form), expected)


def test_32_bits_with_values_of_8_stay_as_they_are():
  values = np.arange(200, dtype=np.uint8).reshape(20, 10)
  wide = Image.fromarray(values).convert("I")
  np.testing.assert_array_equal(image_reader.read(wide)[..., 0], values)
  more = Image.fromarray(values.astype(np.int32) * 257)
  np.testing.assert_array_equal(image_reader.read(more)[..., 0], values)


def test_transparency_is_white_in_every_form(tmp_path):
  pixels = np.zeros((8, 9, 4), np.uint8)
  pixels[:4, :, 3] = 255
  pixels[4, :, 3] = 128
  content = stored(Image.fromarray(pixels), "PNG")
  expected = [0, 127, 255]
  for form in [*forms(content, tmp_path), pixels, pixels / 255]:
    found = image_reader.read(form)
    assert found[[0, 4, 7], 0, 0].tolist() == expected
  palette = Image.fromarray(pixels).convert("P")
  palette.info["transparency"] = palette.getpixel((0, 7))
  found = image_reader.read(stored(palette, "PNG"), color=True)
  assert found[7, 0].tolist() == [255, 255, 255]


def test_arrays_of_all_types_are_one_picture():
  image = picture()
  gray = image_reader.read(image)
  assert gray.shape == (24, 32, 1)
  wide = image.astype(np.uint16) * 257
  for array in (image / 255, (image / 255).astype(np.float32), wide):
    found = image_reader.read(array, color=True)
    np.testing.assert_array_equal(found, image)
  short = (image / 255).astype(ml_dtypes.bfloat16)
  found = image_reader.read(short, color=True)
  np.testing.assert_allclose(found, image.astype(int), atol=1)
  np.testing.assert_array_equal(image_reader.read(gray[..., 0]), gray)
  assert image_reader.read(gray, color=True).shape == (24, 32, 3)
  one = image_reader.read(wide[..., :1])
  np.testing.assert_array_equal(one, image[..., :1])


@pytest.mark.parametrize(
  ("shape", "stack"),
  [
    ((4, 48, 48), True),
    ((4, 48, 48, 1), True),
    ((4, 48, 48, 3), True),
    ((48, 48, 3), False),
    ((48, 48, 1), False),
    ((48, 48), False),
    ((48, 48, 2), False),  # two channels: refused
  ],
)
def test_stacks_are_told_from_images(shape, stack):
  assert image_arrays.is_stack(np.zeros(shape, np.uint8)) == stack


@pytest.mark.parametrize(
  "thing",
  [
    None,
    7,
    [1, 2],
    np.zeros((4, 4), int),
    np.zeros((4, 4), bool),
    np.zeros((4, 4, 2), np.uint8),
    np.zeros((4, 4, 5), np.uint8),
    np.zeros((4,), np.uint8),
    np.zeros((0, 4), np.uint8),
    np.full((4, 4), 1.5),
    np.full((4, 4), -0.1),
    np.full((4, 4), np.nan),
    np.array([["a", "b"]]),
    io.StringIO("text"),
    b"",
    b"GIF89a",
    "a\0b",
  ],
)
def test_everything_else_is_one_clear_error(thing):
  with pytest.raises(image_reader.UnreadableError) as e:
    image_reader.read(thing)
  assert isinstance(e.value, UserError)
  assert str(e.value) and "\n" not in str(e.value)


def test_a_file_in_text_mode_is_told():
  with pytest.raises(image_reader.UnreadableError, match="in binary mode"):
    image_reader.read(io.StringIO("text"))


def test_a_pipe_is_read_within_bounds(monkeypatch):
  content = io.BytesIO()
  Image.new("L", (3, 2), 7).save(content, "PNG")

  def pipe():
    read, write = os.pipe()
    with open(write, "wb") as file:
      file.write(content.getvalue())
    return open(read, "rb")

  with pipe() as file:
    found = image_reader.read(file)
  np.testing.assert_array_equal(found, np.full((2, 3, 1), 7))
  monkeypatch.setattr(image_reader, "MAX_BYTES", 50)
  with pipe() as file, pytest.raises(image_reader.TooLargeError):
    image_reader.read(file)


def png(width, height, depth, color_type=0):
  """Returns a PNG of these measures whose pixels are missing."""

  def chunk(kind, data):
    checked = kind + data
    crc = struct.pack(">I", zlib.crc32(checked))
    return struct.pack(">I", len(data)) + checked + crc

  header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
  pixels = chunk(b"IDAT", zlib.compress(b"\0" * 9))
  start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
  return start + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
  "content",
  [png(13_000, 13_000, 16), png(13_000, 13_000, 8, 2), png(2**31 - 1, 9, 8)],
)
def test_pixels_are_bounded_before_decoding(content):
  for form in (content, io.BytesIO(content)):
    with pytest.raises(image_reader.TooLargeError, match="megapixels"):
      image_reader.read(form)


@pytest.mark.skipif(sys.platform == "win32", reason="has no FIFOs")
def test_what_is_no_regular_file_ends_at_once(tmp_path):
  os.mkfifo(tmp_path / "fifo.png")
  (tmp_path / "folder.png").mkdir()
  for name in ("fifo.png", "folder.png"):
    with pytest.raises(image_reader.UnreadableError, match="regular file"):
      image_reader.read(tmp_path / name)
  (tmp_path / "gone.png").symlink_to("nowhere.png")
  with pytest.raises(image_reader.UnreadableError, match="link to a file"):
    image_reader.read(tmp_path / "gone.png")


def test_no_other_program_is_started(tmp_path, monkeypatch):
  started = tmp_path / "started"
  program = tmp_path / "gs"
  program.write_text(f"#!/bin/sh\ntouch {started}\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
  eps = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage"
  )
  for form in forms(eps, tmp_path):
    with pytest.raises(image_reader.UnreadableError):
      image_reader.read(form)
  assert not started.exists()


def test_avif_is_read():
  image = Image.new("RGB", (40, 30), (200, 30, 30))
  found = image_reader.read(stored(image, "AVIF", quality=100), color=True)
  assert found.shape == (30, 40, 3)
  assert np.abs(found.astype(int) - (200, 30, 30)).max() < 8


def test_heic_is_read_or_its_package_named(monkeypatch):
  heif = pytest.importorskip("pillow_heif", reason="the extra `heic`")
  image = Image.new("RGB", (64, 48), (30, 200, 30))
  file = io.BytesIO()
  heif.from_pillow(image).save(file, quality=95)
  found = image_reader.read(file.getvalue(), color=True)
  assert found.shape == (48, 64, 3)
  assert np.abs(found.astype(int) - (30, 200, 30)).max() < 8
  monkeypatch.setitem(sys.modules, "pillow_heif", None)
  with pytest.raises(image_reader.UnreadableError, match="package pillow-heif"):
    image_reader.read(file.getvalue())


def test_threads_read_without_changing_warnings(tmp_path):
  path = tmp_path / "a.png"
  Image.fromarray(picture()).save(path)
  before = list(warnings.filters)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for found in pool.map(image_reader.read, [path] * 64):
      assert found.shape == (24, 32, 1)
  assert warnings.filters == before


def test_a_square_keeps_the_middle():
  image = np.zeros((20, 60, 3), np.uint8)
  image[:, 20:40] = 255
  assert (image_reader.read_square(image, 16) > 200).all()
  assert (image_reader.square(image, 20) == 255).all()


def test_an_image_of_another_size_than_its_release_is_named():
  image = picture(48, 48)
  found = image_reader.read_sized(image, 48, "a.png")
  np.testing.assert_array_equal(found, image_reader.read(image))
  for content, why in ((picture(40, 50), "50x40 pixels"), (b"?", "not a read")):
    with pytest.raises(UserError, match=rf"^a\\x0ab.png: {why}"):
      image_reader.read_sized(content, 48, "a\nb.png")
