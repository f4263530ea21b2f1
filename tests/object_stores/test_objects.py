"""Objects, folders of objects, leases and URLs, on a store in memory."""

import json
import pathlib
import subprocess
import sys
import threading
from typing import Any, cast

import fsspec
import pytest

from fer_jax.errors import UserError
from fer_jax.inference import predict_images
from fer_jax.object_stores import (
  lease,
  local_copies,
  scratch,
  urls,
  whole_folders,
)
from fer_jax.object_stores.objects import ObjectFolder, StoreError, read_file
from fer_jax.output_folder import OutputFolder
from fer_jax.pretrained import converted_weights, files
from fer_jax.training.runtime import compilation_cache


@pytest.fixture
def folder(memory_store: str) -> ObjectFolder:
  return ObjectFolder(f"{memory_store}/run")


@pytest.fixture
def fast_leases(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
  monkeypatch.setattr(lease, "EXPIRE_SECONDS", 0.4)
  monkeypatch.setattr(lease, "_POLL_SECONDS", 0.02)


@pytest.mark.parametrize(
  "text", ["s3://b/run", "s3:/b/run", "S3://b/run", "gs://b/a b/ü"]
)
def test_urls_keep_their_slashes(text):
  path = urls.to_path(pathlib.Path(text)) / "config.json"
  scheme, _, rest = text.partition(":")
  assert str(path) == f"{scheme.lower()}://{rest.lstrip('/')}/config.json"
  assert urls.is_url(path) and urls.to_path(path) == path
  with pytest.raises(UserError, match="workdir=.* not a path of this.*copy it"):
    urls.require_local(path, "workdir")


@pytest.mark.parametrize("text", ["runs/s3:/b", "s3", "/gs:/x", "~/run"])
def test_other_paths_are_local(text):
  assert not urls.is_url(text)
  assert type(urls.to_path(text)) is type(pathlib.Path(text))
  assert urls.require_local(text, "workdir") == pathlib.Path(text).expanduser()


def test_other_urls_are_refused():
  with pytest.raises(UserError, match="AZ://b/run is neither s3://, gs://"):
    urls.to_path("AZ://b/run")
  for url in ("s3://b/photo.jpg", "http://x/photo.jpg"):
    with pytest.raises(
      UserError, match=f"^image={url} is not a path of this machine: give one$"
    ):
      urls.require_local(url, "image", is_input=True)


@pytest.mark.parametrize(
  "use",
  [
    compilation_cache.use_cache,
    converted_weights.check_new,
    converted_weights.load,
    files.read,
    lambda path: predict_images.predict_files(cast(Any, None), [path]),
  ],
)
def test_a_home_that_does_not_exist_is_one_line(use):
  with pytest.raises(UserError, match="~nouser/x: .*without ~"):
    use("~nouser/x")


def test_a_missing_package_is_one_line(monkeypatch):
  def missing(*args, **options):
    raise ImportError("Install s3fs to access S3")

  monkeypatch.setattr(fsspec, "filesystem", missing)
  with pytest.raises(StoreError, match=r"s3fs.*pip install 'fer_jax\[s3\]'$"):
    ObjectFolder("s3://bucket/run")


def test_files_go_and_come_back(folder, tmp_path):
  names = ["a.txt", "deep/er/b.bin", "empty"]
  for name in names:
    path = tmp_path / "from" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() * (name != "empty"))
  folder.upload(names, tmp_path / "from")
  assert sorted(folder.list()) == names
  assert folder.list()["a.txt"] == 5
  folder.download(names, tmp_path / "to")
  for name in names:
    expected = (tmp_path / "from" / name).read_bytes()
    assert (tmp_path / "to" / name).read_bytes() == expected
  folder.delete(["a.txt", "never there"])
  assert folder.read("a.txt") is None
  assert (folder / "deep").read("er/b.bin") == b"deep/er/b.bin"
  assert read_file(urls.to_path(folder.url) / "deep/er/b.bin")
  assert read_file(tmp_path / "from" / "missing") is None


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:evil"])
def test_names_that_lead_out_of_the_folder_are_refused(folder, tmp_path, name):
  folder.write("good", b"1")
  with pytest.raises(StoreError, match="its name leads out of the folder"):
    folder.download(["good", name], tmp_path / "to")
  assert not list(tmp_path.iterdir())


def test_an_interrupted_upload_is_incomplete(folder, tmp_path, monkeypatch):
  for name in ("one", "two"):
    (tmp_path / name).write_text(name)
  checkpoint = folder / "checkpoints/5"
  checkpoint.write("stale", b"of an earlier upload")

  def upload(self, names, local):
    self.write("one", b"one")
    raise StoreError("killed here")

  with monkeypatch.context() as patch:
    patch.setattr(ObjectFolder, "upload", upload)
    with pytest.raises(StoreError):
      whole_folders.upload(tmp_path, checkpoint)
  complete, incomplete = whole_folders.find(folder.list(), "checkpoints")
  assert (complete, incomplete) == ({}, ["5"])
  whole_folders.upload(tmp_path, checkpoint)
  complete, incomplete = whole_folders.find(folder.list(), "checkpoints")
  names = ["checkpoints/5/one", "checkpoints/5/two"]
  assert (complete, incomplete) == ({"5": names}, [])
  whole_folders.delete(checkpoint)
  assert not folder.list()


def test_outputs_are_replaced_unless_they_are_the_users(folder):
  place = urls.to_path(folder.url)
  for content in ("first", "second"):
    with local_copies.output(place) as local:
      with OutputFolder(local, kind="model").write("model.json") as temporary:
        temporary.write_text(content)
    assert folder.read("model.json") == content.encode()
  folder.write("model.json", b"something of the user's")
  with pytest.raises(UserError, match="gs://bucket/run/model.json exists"):
    with local_copies.output(place) as local:
      OutputFolder(local, kind="model").path("model.json")


def test_a_lease_excludes_others_and_ends(folder, fast_leases):
  with lease.held(folder):
    with pytest.raises(UserError, match="another process is training in gs://"):
      lease.Lease(folder)
    assert len((folder / lease.FOLDER).list()) == 1
  assert not folder.list()
  with lease.held(folder):
    pass


def test_of_two_at_once_never_both_hold_it(folder, fast_leases):
  for _ in range(5):
    start = threading.Barrier(3)
    held: list[lease.Lease] = []
    errors: list[UserError] = []

    def hold(start=start, held=held, errors=errors):
      start.wait()
      try:
        held.append(lease.Lease(folder))
      except UserError as e:
        errors.append(e)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
      thread.start()
    start.wait()
    for thread in threads:
      thread.join()
    assert len(held) <= 1 and len(held) + len(errors) == 2
    for one in held:
      one.release()


def test_a_dead_process_holds_nothing(folder, fast_leases):
  ended = subprocess.Popen([sys.executable, "-c", ""])
  ended.wait()
  holder = lease._this_process() | {"pid": ended.pid}
  folder.write(f"{lease.FOLDER}/dead", json.dumps(holder).encode())
  with lease.held(folder):
    assert "dead" not in (folder / lease.FOLDER).list()


@pytest.mark.parametrize("content", [b'{"host": "x", "pid": 1}', b"\xff", b"1"])
def test_a_lease_of_another_machine_expires(folder, fast_leases, content):
  folder.write(f"{lease.FOLDER}/other", content)
  with lease.held(folder):
    assert "other" not in (folder / lease.FOLDER).list()


def test_who_could_not_renew_checks_for_others(folder, fast_leases):
  with lease.held(folder) as mine:
    mine._renewed -= 10 * lease.EXPIRE_SECONDS
    mine.check()
    folder.write(f"{lease.FOLDER}/other", b'{"host": "x", "pid": 1}')
    mine._renewed -= 10 * lease.EXPIRE_SECONDS
    with pytest.raises(UserError, match="process 1 on x"):
      mine.check()
    folder.delete([f"{lease.FOLDER}/other"])


def test_scratch_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
  monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
  code = (
    "import os, tempfile; from fer_jax.object_stores import scratch;"
    f"tempfile.tempdir = {str(tmp_path)!r}\n"
    "with scratch.folder() as made: (made / 'x').touch(); os._exit(9)"
  )
  subprocess.run([sys.executable, "-c", code], check=False)
  (left,) = [path for path in tmp_path.iterdir() if path.is_dir()]
  with scratch.folder() as first, scratch.folder() as second:
    assert not left.exists()
    assert first.is_dir() and second.is_dir()
  assert not list(tmp_path.iterdir())
  with pytest.raises(KeyError), scratch.folder() as made:
    with scratch.kept(made):
      raise KeyError
  assert made.is_dir()
