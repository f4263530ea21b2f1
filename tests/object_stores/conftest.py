"""A real S3 server on this machine, and a store in memory."""

import logging
import os
from collections.abc import Iterator

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

BUCKET = "bucket"


class MemoryStore(MemoryFileSystem):
  """fsspec's store in this process's memory, as gs://."""

  protocol = "gs"
  store: dict[str, object] = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return super()._strip_protocol(path.replace("gs://", "memory://"))


@pytest.fixture
def memory_store() -> Iterator[str]:
  """Returns the URL of an empty bucket in memory."""
  MemoryStore.store.clear()
  fsspec.register_implementation("gs", MemoryStore, clobber=True)
  yield f"gs://{BUCKET}"
  fsspec.register_implementation("gs", "gcsfs.GCSFileSystem", clobber=True)


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
  reason = "pip install 'fer_jax[test-s3]'"
  pytest.importorskip("s3fs", reason=reason)
  moto = pytest.importorskip("moto.server", reason=reason)
  logging.getLogger("werkzeug").setLevel(logging.ERROR)
  server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  yield f"http://{host}:{port}"
  server.stop()


@pytest.fixture
def s3(_s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
  """Returns the URL of an empty bucket, which commands find, too."""
  for name in [name for name in os.environ if name.startswith("AWS_")]:
    monkeypatch.delenv(name)
  monkeypatch.setenv("AWS_ENDPOINT_URL", _s3_server)
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
  monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
  monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
  monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
  monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
  files = fsspec.filesystem(
    "s3", key="test", secret="test", endpoint_url=_s3_server
  )
  files.mkdir(BUCKET)
  yield f"s3://{BUCKET}"
  files.rm(BUCKET, recursive=True)
  files.clear_instance_cache()  # The next one sees other variables.
