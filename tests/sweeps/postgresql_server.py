"""A PostgreSQL server of its own for a test, on a free port of 127.0.0.1."""

import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
from typing import Any


def find_programs() -> pathlib.Path | None:
  """Returns the folder of initdb and pg_ctl; None if not installed."""
  if program := shutil.which("pg_ctl"):
    return pathlib.Path(program).parent
  found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
  return found[-1].parent if found else None


class Server:
  """A running server; the superuser is `fer`, without a password.

  Attributes:
    url: of its database, for SQLAlchemy.
  """

  def __init__(self, programs: pathlib.Path):
    """Creates a database cluster in a temporary folder and starts it."""
    self._programs = programs
    self._folder = pathlib.Path(tempfile.mkdtemp(prefix="fer_pg_"))
    # PostgreSQL refuses to run as root; its package has a user for it.
    self._user = "postgres" if os.getuid() == 0 else getpass.getuser()
    if os.getuid() == 0:
      shutil.chown(self._folder, self._user)
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    self.url = f"postgresql://fer@127.0.0.1:{port}/postgres"
    data = str(self._folder / "data")
    self._run("initdb", "-D", data, "-U", "fer", "-A", "trust", "-N")
    options = f"-p {port} -h 127.0.0.1 -k {self._folder} -F"
    self._control = ("pg_ctl", "-w", "-D", data, "-o", options)
    self._log = str(self._folder / "log")
    self.start()

  def start(self) -> None:
    """Starts it and waits until it answers."""
    self._run(*self._control, "-l", self._log, "start")

  def stop(self) -> None:
    """Ends all connections and stops."""
    self._run(*self._control, "-m", "fast", "stop")

  def close(self) -> None:
    """Stops it and removes its files."""
    self.stop()
    shutil.rmtree(self._folder)

  def _run(self, program: str, *arguments: str) -> None:
    options: dict[str, Any] = {}
    if os.getuid() == 0:
      options = {"user": self._user, "group": self._user, "extra_groups": []}
    subprocess.run(
      [self._programs / program, *arguments],
      check=True,
      cwd=self._folder,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      timeout=120,
      **options,
    )
