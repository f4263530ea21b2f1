"""Hostile and huge files end in one line, within seconds and bounded memory."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest

from fer_jax.data.datasets import bounded_io, csv_table
from fer_jax.errors import UserError

CONTENT = b"some text\n" * 1000
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
  "gz": gzip.compress,
  "xz": lzma.compress,
  "bz2": bz2.compress,
  "plain": bytes,
}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_content_is_decompressed_by_its_kind(kind):
  f = io.BytesIO(COMPRESSORS[kind](CONTENT))
  assert bounded_io.decompressed(f).read() == CONTENT


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_concatenated_streams_are_one_content(kind):
  f = io.BytesIO(COMPRESSORS[kind](CONTENT) + COMPRESSORS[kind](b"more"))
  assert bounded_io.decompressed(f).read() == CONTENT + b"more"


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_a_truncated_stream_is_an_error(kind):
  f = io.BytesIO(COMPRESSORS[kind](os.urandom(50_000))[:-5000])
  with pytest.raises(bounded_io.BROKEN):
    bounded_io.decompressed(f).read()


def test_more_than_the_bound_is_an_error():
  stream = bounded_io.limited(io.BytesIO(CONTENT), limit=100)
  with pytest.raises(bounded_io.TooLargeError, match="more than 100 bytes"):
    stream.read()
  exact = bounded_io.limited(io.BytesIO(CONTENT), limit=len(CONTENT))
  assert exact.read() == CONTENT


def test_xz_that_needs_gigabytes_of_memory_is_refused():
  filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
  # The header alone asks for the memory.
  compressor = lzma.LZMACompressor(filters=[{**filters[0], "dict_size": 4096}])
  small = compressor.compress(b"x") + compressor.flush()
  # Byte 16 of a stream holds LZMA2's dictionary size; 36 is 1 GiB.
  block = bytearray(small[12:24])
  block[4] = 36
  block[8:12] = zlib.crc32(bytes(block[:8])).to_bytes(4, "little")
  f = io.BytesIO(small[:12] + bytes(block) + small[24:])
  with pytest.raises(lzma.LZMAError, match="[Mm]emory"):
    bounded_io.decompressed(f).read()


def test_long_lines_and_empty_lines_are_bounded():
  with pytest.raises(ValueError, match="a line of more than 65,536 bytes"):
    list(bounded_io.lines(io.BytesIO(b"1" * 100_000)))
  with pytest.raises(ValueError, match="more than 1,000 empty lines"):
    list(bounded_io.lines(io.BytesIO(b"\n" * 5000)))
  assert list(bounded_io.lines(io.BytesIO(b"a\n\nb"))) == [b"a\n", b"\n", b"b"]


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_a_compressed_line_of_a_gigabyte_is_not_decompressed(kind, tmp_path):
  """40 MB stand for it: far above the bound, and quick to make."""
  f = io.BytesIO(COMPRESSORS[kind](b"1" * 40_000_000))
  with pytest.raises(UserError, match="a line of more than 65,536 bytes"):
    table = bounded_io.decompressed(f)
    csv_table.open_table("t.csv", table, ["a"], "a table")


def test_a_fifo_is_no_file(tmp_path):
  os.mkfifo(tmp_path / "pipe.csv")
  with pytest.raises(OSError, match="not a regular file"):
    bounded_io.open_regular(tmp_path / "pipe.csv")


def test_small_texts_are_bounded(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"1" * 100)
  assert bounded_io.read_text(tmp_path / "a.txt") == "1" * 100
  with pytest.raises(bounded_io.TooLargeError):
    bounded_io.read_text(tmp_path / "a.txt", max_bytes=99)


def test_members_of_a_zip_are_bounded():
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("bomb.png", bytes(1000))
  with zipfile.ZipFile(out) as archive:
    assert len(bounded_io.read_member(archive, "bomb.png")) == 1000
    with pytest.raises(bounded_io.TooLargeError, match=r"bomb.png has 1,000"):
      bounded_io.read_member(archive, "bomb.png", max_bytes=999)


def tar_of(*members):
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w") as archive:
    for info, content in members:
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return out


def special(name, kind, target=""):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, target
  return info, b""


def test_tar_members_that_are_no_files_are_passed_over():
  out = tar_of(
    special("link.csv", tarfile.SYMTYPE, "/etc/passwd"),
    special("hard.csv", tarfile.LNKTYPE, "/etc/passwd"),
    special("device.csv", tarfile.CHRTYPE),
    special("fifo.csv", tarfile.FIFOTYPE),
    (tarfile.TarInfo("../../up.csv"), b"1"),
    (tarfile.TarInfo("/absolute.csv"), b"2"),
  )
  out.seek(0)
  read = [(name, f.read()) for name, f in bounded_io.tar_members(out)]
  assert read == [("../../up.csv", b"1"), ("/absolute.csv", b"2")]


def test_a_tar_header_of_megabytes_is_refused():
  info = tarfile.TarInfo("a.csv")
  info.pax_headers = {"comment": "x" * 1_000_000}
  out = io.BytesIO()
  with tarfile.open(
    fileobj=out, mode="w", format=tarfile.PAX_FORMAT
  ) as archive:
    archive.addfile(info, io.BytesIO())
  out.seek(0)
  with pytest.raises(tarfile.ReadError, match="a header of"):
    list(bounded_io.tar_members(out))


@pytest.mark.parametrize(
  "header", [b"Emotion, PIXELS ,usage", b"emotion;pixels;Usage", b'"emotion"\t']
)
def test_headers_in_any_case_and_with_any_separator(header):
  separator = next(s for s in (b",", b";", b"\t") if s in header)
  body = separator.join([b"3", b' 1 2 "', b"Training"])
  if separator == b"\t":
    header, body = b'"emotion"\tpixels\tUsage', b"3\t1 2\tTraining"
  f = io.BytesIO(b"\xef\xbb\xbf" + header + b"\r\n" + body + b"\r\n\r\n")
  table = csv_table.open_table("t.csv", f, ["emotion", "Usage"], "a table")
  rows = list(table.rows(["Usage", "emotion", "pixels"]))
  assert rows == [(2, [b"Training", b"3", b"1 2"])]


def test_what_is_wrong_with_a_table_is_said():
  with pytest.raises(UserError, match="no column b and no c in the header"):
    csv_table.open_table("t", io.BytesIO(b"a,d\n"), ["a", "b", "c"], "x.csv")
  table = csv_table.open_table("t", io.BytesIO(b"a,b\n1,2\n1\n"), ["a"], "x")
  with pytest.raises(UserError, match="t, line 3: 1 fields instead of 2"):
    list(table.rows(["a"]))
