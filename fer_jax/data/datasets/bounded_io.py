"""Reading of release files that may be damaged, huge or hostile.

Nothing here reads more than a bound: a small compressed file can stand for
terabytes, and a file without line ends is one line.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

# Bytes. fer2013.csv has 301 million, and its longest line, 2,304 numbers of
# three digits, is below 10,000.
MAX_TABLE = 1 << 30
MAX_LINE = 1 << 16
MAX_IMAGE = 1 << 26  # an image's file in an archive
MAX_TEXT = 1 << 16  # labels and landmarks
_MAX_EMPTY_LINES = 1000
_MAX_XZ_MEMORY = 1 << 28  # presets need at most 65 MiB
_MAX_TAR_HEADER = 1 << 16  # long names and extended headers

# What reading a damaged file raises: gzip, xz, tar and zip each their own.
BROKEN = (
  EOFError,
  OSError,
  zlib.error,
  lzma.LZMAError,
  tarfile.TarError,
  zipfile.BadZipFile,
  NotImplementedError,  # a zip's unknown compression
  RuntimeError,  # a zip with a password
)


class TooLargeError(OSError):
  """A file holds more than the bound; the message says how much that is."""


class _Readable(Protocol):
  def read(self, size: int = ..., /) -> bytes: ...


class LimitedReader(io.RawIOBase):
  """A stream of which at most `limit` bytes are read.

  Raises:
    TooLargeError: when more are asked for and there are more.
  """

  def __init__(self, stream: _Readable, limit: int = MAX_TABLE):
    self._stream = stream
    self._limit = limit
    self._left = limit

  def readable(self) -> bool:
    """Returns True."""
    return True

  def readinto(self, buffer: Any, /) -> int:
    """Reads into a buffer, as `io.RawIOBase` documents it."""
    content = self._stream.read(len(buffer))
    self._left -= len(content)
    if self._left < 0:
      raise TooLargeError(f"more than {self._limit:,} bytes")
    buffer[: len(content)] = content
    return len(content)


def limited(stream: _Readable, limit: int = MAX_TABLE) -> io.BufferedReader:
  """Returns a buffered `LimitedReader`."""
  return io.BufferedReader(LimitedReader(stream, limit), 1 << 16)


def open_regular(path: Path) -> IO[bytes]:
  """Opens a file that must be a regular one: a FIFO would wait forever.

  Raises:
    OSError: it is none, or cannot be read.
  """
  descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise OSError("not a regular file")
  return os.fdopen(descriptor, "rb")


def read_text(path: Path, max_bytes: int = MAX_TEXT) -> str:
  """Reads a small text file, without a byte-order mark.

  Raises:
    OSError: it is larger than `max_bytes`, no regular file, or unreadable.
  """
  with open_regular(path) as f:
    content = f.read(max_bytes + 1)
  if len(content) > max_bytes:
    raise TooLargeError(f"more than {max_bytes:,} bytes")
  return content.decode("utf-8-sig", "replace")


def decompressed(f: IO[bytes]) -> io.BufferedReader:
  """Returns a bounded stream of a file's content, decompressed by its kind.

  gzip, xz and bzip2 are told by the first bytes, anything else is read as it
  is.
  """
  buffered = f if isinstance(f, io.BufferedReader) else limited(f)
  start = buffered.peek(6)[:6]
  if start.startswith(b"\x1f\x8b"):
    return limited(gzip.GzipFile(fileobj=buffered))
  if start.startswith(b"\xfd7zXZ\x00"):
    return limited(_XzReader(buffered))
  if start.startswith(b"BZh"):
    return limited(bz2.BZ2File(buffered))
  return limited(buffered)


class _XzReader:
  """Reads .xz with a bound on memory, which `lzma.LZMAFile` lacks."""

  def __init__(self, stream: IO[bytes]):
    self._stream = stream
    self._decompressor = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY)

  def read(self, size: int = 1 << 16, /) -> bytes:
    while True:
      if self._decompressor.eof:
        rest = self._decompressor.unused_data or self._stream.read(1 << 16)
        if not rest.lstrip(b"\0"):  # Padding, or the end.
          return b""
        self._decompressor = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY)
      elif self._decompressor.needs_input:
        rest = self._stream.read(1 << 16)
        if not rest:
          raise EOFError("the compressed file ends before its end marker")
      else:
        rest = b""
      if content := self._decompressor.decompress(rest, max_length=size):
        return content


def lines(f: IO[bytes], max_line: int = MAX_LINE) -> Iterator[bytes]:
  """Yields the lines of a file.

  Raises:
    ValueError: a line is too long, or there are too many empty ones.
  """
  empty = 0
  while line := f.readline(max_line + 1):
    if len(line) > max_line:
      raise ValueError(f"a line of more than {max_line:,} bytes")
    empty = 0 if line.strip() else empty + 1
    if empty > _MAX_EMPTY_LINES:
      raise ValueError(f"more than {_MAX_EMPTY_LINES:,} empty lines")
    yield line


def read_member(
  archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_IMAGE
) -> bytes:
  """Reads a member of a zip archive; never more than the size it states.

  Raises:
    TooLargeError: it is larger than `max_bytes`.
  """
  size = archive.getinfo(name).file_size
  if size > max_bytes:
    raise TooLargeError(
      f"{name} has {size:,} bytes, more than the {max_bytes:,} allowed"
    )
  return archive.read(name)


class _TarInfo(tarfile.TarInfo):
  """A member whose headers are short: tarfile reads them into memory."""

  def _proc_member(self, archive: tarfile.TarFile) -> Any:
    header = self.type not in tarfile.SUPPORTED_TYPES or self.type in (
      tarfile.XHDTYPE,
      tarfile.XGLTYPE,
      tarfile.SOLARIS_XHDTYPE,
      tarfile.GNUTYPE_LONGNAME,
      tarfile.GNUTYPE_LONGLINK,
    )
    if header and self.size > _MAX_TAR_HEADER:
      raise tarfile.ReadError(f"a header of {self.size:,} bytes")
    return super()._proc_member(archive)  # type: ignore[misc]


def tar_members(
  f: IO[bytes],
) -> Iterator[tuple[str, IO[bytes]]]:
  """Yields name and content of the regular files in a tar archive, in order.

  Links, devices and folders are passed over, and nothing is written to disk.
  """
  with tarfile.open(
    fileobj=decompressed(f), mode="r|", tarinfo=_TarInfo
  ) as archive:
    for member in archive:
      if member.isreg() and (content := archive.extractfile(member)):
        yield member.name, content
