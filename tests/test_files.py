"""Atomic writes, and output folders that overwrite nothing of the user's."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from fer_jax import output_folder
from fer_jax.errors import UserError
from fer_jax.files import atomic_write
from fer_jax.output_folder import OutputFolder, write_output
from fer_jax.output_names import output_names


def names(folder):
  return sorted(os.listdir(folder))


def test_a_write_replaces_the_whole_file(tmp_path):
  path = tmp_path / "a.json"
  path.write_text("old")
  path.chmod(0o640)
  with atomic_write(path) as temporary:
    assert temporary.suffix == ".json" and temporary.parent == tmp_path
    temporary.write_text("new")
    assert path.read_text() == "old"
  assert path.read_text() == "new" and names(tmp_path) == ["a.json"]
  assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_write_leaves_the_old_file(tmp_path, error):
  path = tmp_path / "a.json"
  path.write_text("old")
  with pytest.raises(error):
    with atomic_write(path) as temporary:
      temporary.write_text("half")
      raise error
  assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_a_link_stays_a_link(tmp_path):
  (tmp_path / "real").mkdir()
  link = tmp_path / "link.txt"
  link.symlink_to("real/file.txt")
  with atomic_write(link) as temporary:
    temporary.write_text("new")
  assert link.is_symlink()
  assert (tmp_path / "real/file.txt").read_text() == "new"


def test_an_error_names_the_file_not_the_temporary(tmp_path):
  (tmp_path / "folder").mkdir()
  for path in (tmp_path / "folder", tmp_path / "no/a.txt"):
    with pytest.raises(OSError) as e:
      with atomic_write(path) as temporary:
        temporary.write_text("x")
    assert e.value.filename == str(path)
  with atomic_write(tmp_path / "no/a.txt", parents=True) as temporary:
    temporary.write_text("x")
  assert names(tmp_path / "no") == ["a.txt"]


def test_names_of_any_bytes_and_length(tmp_path):
  for name in ("é" * 120, "a" * 250, "caf\udce9.txt", "a\nb"):
    with atomic_write(tmp_path / name) as temporary:
      temporary.write_text("x")
    assert (tmp_path / name).read_text() == "x"
    (tmp_path / name).unlink()
  assert names(tmp_path) == []


def put(folder, name, text="made"):
  with folder.write(name) as temporary:
    temporary.write_text(text)


def test_inputs_and_foreign_files_are_never_overwritten(tmp_path):
  own, other = tmp_path / "me.png", tmp_path / "you.png"
  own.write_text("mine")
  other.write_text("yours")
  folder = OutputFolder(tmp_path, inputs=[own])
  with pytest.raises(UserError, match="is an input"):
    put(folder, "me.png")
  with pytest.raises(UserError, match="not made by fer_jax"):
    put(folder, "you.png")
  assert (own.read_text(), other.read_text()) == ("mine", "yours")
  assert names(tmp_path) == ["me.png", "you.png"]


def test_an_input_is_known_through_links(tmp_path):
  (tmp_path / "photos").mkdir()
  own = tmp_path / "photos/me.png"
  own.write_text("mine")
  (tmp_path / "out").symlink_to("photos")
  with pytest.raises(UserError, match="is an input"):
    put(OutputFolder(tmp_path / "out", inputs=[own]), "me.png")


def test_a_second_run_replaces_its_own_files(tmp_path):
  put(OutputFolder(tmp_path / "out"), "sub/a.png", "one")
  put(OutputFolder(tmp_path / "out"), "sub/a.png", "second")
  assert (tmp_path / "out/sub/a.png").read_text() == "second"
  made = output_folder.made_files(tmp_path / "out", "drawing")
  assert made == {tmp_path / "out/sub/a.png"}
  (tmp_path / "out/sub/a.png").write_text("the user's own now")
  with pytest.raises(UserError, match="changed since"):
    put(OutputFolder(tmp_path / "out"), "sub/a.png")
  assert not output_folder.made_files(tmp_path / "out")


def test_a_file_is_what_it_was_made_last(tmp_path):
  for kind in ("drawing", "face"):
    put(OutputFolder(tmp_path, kind=kind), "a.png", kind)
  assert output_folder.made_files(tmp_path, "face") == {tmp_path / "a.png"}
  assert not output_folder.made_files(tmp_path, "drawing")


def test_copies_are_known_by_their_content(tmp_path):
  put(OutputFolder(tmp_path / "out"), "a.png", "one")
  shutil.copytree(tmp_path / "out", tmp_path / "copy")
  for name in ("out", "copy"):  # Without their times.
    os.utime(tmp_path / name / "a.png", (1, 1))
    put(OutputFolder(tmp_path / name), "a.png", "two")
  os.utime(tmp_path / "copy" / "a.png", (1, 1))
  (tmp_path / "copy" / "a.png").write_text("own")
  os.utime(tmp_path / "copy" / "a.png", (1, 1))
  with pytest.raises(UserError, match="changed since"):
    put(OutputFolder(tmp_path / "copy"), "a.png")


def test_two_processes_may_replace_each_others_files(tmp_path):
  first, second = OutputFolder(tmp_path), OutputFolder(tmp_path)
  put(first, "a.png", "one")
  put(second, "a.png", "second")
  assert (tmp_path / "a.png").read_text() == "second"


def test_an_output_of_another_input_is_not_replaced(tmp_path):
  def make(source):
    folder = OutputFolder(tmp_path / "out")
    folder.paths_for({source: "1.png"})
    put(folder, "1.png", str(source))

  first, second = tmp_path / "a/1.jpg", tmp_path / "b/1.jpg"
  make(first)
  make(first)
  with pytest.raises(UserError, match="a/1.jpg, and .*b/1.jpg would replace"):
    make(second)
  assert (tmp_path / "out/1.png").read_text() == str(first)
  (tmp_path / "out/1.png").unlink()
  make(second)
  OutputFolder(tmp_path / "out").paths_for({first: "1.png", second: "2.png"})
  put(OutputFolder(tmp_path / "out"), "1.png")  # of no single input
  make(first)


def test_inputs_are_known_where_both_folders_were_moved(tmp_path):
  for name in ("here", "there"):
    folder = OutputFolder(tmp_path / name / "out")
    folder.paths_for({tmp_path / name / "1.jpg": "1.png"})
    put(folder, "1.png")
    if name == "here":
      shutil.copytree(tmp_path / "here", tmp_path / "there")


def test_secrets_in_urls_are_not_noted(tmp_path):
  folder = OutputFolder(tmp_path)
  url = "https://me:secret@example.org/a.png?key=secret"
  folder.paths_for({url: "url1.png"})
  put(folder, "url1.png")
  manifest = (tmp_path / output_folder.MANIFEST).read_text()
  assert "https://example.org/a.png" in manifest and "secret" not in manifest


def test_other_threads_see_the_whole_list_while_it_is_read(
  tmp_path, monkeypatch
):
  folder, loads, seen = OutputFolder(tmp_path), json.loads, []
  put(folder, "a.png")
  (tmp_path / "mine.png").write_text("mine")

  def look(line):  # What another thread would find now.
    seen.append(folder._manifest.made(tmp_path / "a.png"))
    return loads(line)

  monkeypatch.setattr(json, "loads", look)
  with pytest.raises(UserError, match="not made by fer_jax"):
    put(folder, "mine.png")
  assert seen == [True]


def test_a_damaged_manifest_is_no_traceback(tmp_path):
  put(OutputFolder(tmp_path), "a.png")
  manifest = tmp_path / output_folder.MANIFEST
  manifest.write_bytes(b"\xff{\n[]\nnull\n{}\n" + manifest.read_bytes()[:-9])
  with pytest.raises(UserError, match="not made by fer_jax"):
    put(OutputFolder(tmp_path), "a.png")


def test_one_output_beside_the_users_files(tmp_path):
  for text in ("one", "two"):
    with write_output(tmp_path / "sheet.png") as temporary:
      temporary.write_text(text)
  assert (tmp_path / "sheet.png").read_text() == "two"
  with pytest.raises(UserError, match="is an input"):
    with write_output(tmp_path / "sheet.png", [tmp_path / "sheet.png"]):
      pass


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write .*file"):
    put(OutputFolder(tmp_path / "file"), "a.png")
  for folder in (tmp_path / "file", tmp_path / "file/sub"):
    with pytest.raises(UserError, match="not a folder that may be written"):
      OutputFolder(folder).paths_for({"a.jpg": "a.png"})
    with pytest.raises(UserError, match="not a folder that may be written"):
      OutputFolder(folder).unused("a.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line(tmp_path):
  with pytest.raises(UserError, match="No space left"):
    with OutputFolder(tmp_path).write("a.png"):
      with open("/dev/full", "w") as full:
        full.write("x")
  assert names(tmp_path) == []


def test_two_sources_never_share_an_output():
  given = {
    Path("a/x/1.jpg"): Path("a"),
    Path("b/x/1.jpg"): Path("b"),
    Path("b/x/2.jpg"): Path("b"),
    Path("b/x/2.PNG"): Path("b"),
    Path("b/x/É.png"): Path("b"),
    Path("b/x/e\u0301.png"): Path("b"),
  }
  found = [str(name) for name in output_names(given, ".png").values()]
  assert found == [
    "a/x/1.png",
    "b/x/1.png",
    "b/x/2.jpg.png",
    "b/x/2.PNG.png",
    "b/x/É.png.png",
    "b/x/e\u0301.png-2.png",
  ]


def test_only_names_that_collide_change_where_folders_are_classes():
  given = {
    Path(root, name): Path(root)
    for root, name in (
      ("a", "joy/1.jpg"),
      ("a", "joy/1-2.jpg"),
      ("b", "joy/1.png"),
      ("b", "joy/2.png"),
      ("b", "Joy/1.bmp"),
    )
  }
  found = output_names(given, ".png", keep_folders=True)
  assert [name.as_posix() for name in found.values()] == [
    "joy/1.png",
    "joy/1-2.png",
    "joy/1-3.png",
    "joy/2.png",
    "Joy/1-4.png",
  ]


def test_names_with_an_images_suffix_are_taken_only_once():
  given = {Path(name): Path(name) for name in ("a.jpg", "a.png", "a.jpg.png")}
  found = [str(name) for name in output_names(given, ".png").values()]
  assert found == ["a.jpg.png", "a.png.png", "a.jpg-2.png"]
