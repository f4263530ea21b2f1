"""What benchmarks refuse, skip and count, without measuring anything."""

import socket
import threading

import demo_load
import face_recall
import numpy as np
import peer_variants
import peers
import program_rows
import pytest
import reporting
import workers

from fer_jax.errors import UserError


def test_unequal_work_is_refused():
  ours = {"num_parameters": 5, "loss": 1.0, "gradient": 2.0, "platform": "gpu"}
  key = ("pytorch", "eager contiguous", "float32")
  for change in ({"loss": 1.01}, {"gradient": 2.1}, {"num_parameters": 6}):
    about = {("fer_jax", "", "float32"): ours, key: ours | change}
    with pytest.raises(UserError, match="the models differ"):
      peer_variants.check_equal("resnet18", about)
  about[key] = ours | {"platform": "cpu"}
  with pytest.raises(UserError, match="pytorch runs on cpu, but fer_jax on g"):
    peer_variants.check_equal("resnet18", about)
  about[key] = ours | {"loss": 1.00005, "gradient": 2.001}
  peer_variants.check_equal("resnet18", about)


def test_a_variant_that_fails_leaves_the_others(monkeypatch, capsys):
  class Worker:
    def __init__(self, script, case, environment):
      self.case = case

    def ask(self, what):
      if self.case["variant"] == "graph x":
        raise workers.WorkerError("no CUDA device")
      if self.case["library"] == "flax":
        raise workers.NotInstalled("flax is not installed")
      return {}

  monkeypatch.setattr(peers, "Worker", Worker)
  keys = [("fer_jax", "", "float32"), ("pytorch", "graph x", "float32")]
  keys += [("pytorch", "eager x", "float32"), ("flax", "", "float32")]
  keys += [("flax", "", "bfloat16")]
  _, about = peers._start({"model": "m"}, keys, "", [])
  assert list(about) == [keys[0], keys[2]]
  printed = capsys.readouterr().out
  assert "m: pytorch graph x float32 is skipped: no CUDA device" in printed
  assert printed.count("m: flax is skipped") == 1


def test_trials_do_not_replace_committed_tables():
  ignored = (reporting.HERE.parent / ".gitignore").read_text().splitlines()
  assert f"/benchmarks/{reporting.OUTPUT.name}/" in ignored
  assert reporting.OUTPUT.parent == reporting.RESULTS.parent
  for script in reporting.HERE.glob("*.py"):
    assert '"benchmarks/results"' not in script.read_text(), script


@pytest.fixture
def case() -> dict[str, str]:
  """A program to compile for a described GPU."""
  return {"platform": "gpu", "model": "m", "dtype": "float32"}


def test_a_missing_compiler_is_one_line(monkeypatch, tmp_path, case):
  monkeypatch.setitem(program_rows._COMPILERS, "gpu", ("no_such_plugin",))
  with pytest.raises(UserError, match="pip install fer_jax.aot.$"):
    program_rows.complete([case], [], str(tmp_path), "table", fresh=False)


def test_programs_are_compiled_once(monkeypatch, tmp_path, capsys, case):
  def compile_program(case):
    if case["model"] == "bad":
      raise ValueError("too large")
    compiled.append(case)
    return {**case, "kernels": 3}

  def complete(*cases):
    program_rows.complete(cases, [], str(tmp_path), "table", fresh=False)

  compiled: list[dict[str, str]] = []
  monkeypatch.setattr(program_rows, "check_compiler", lambda platform: None)
  monkeypatch.setattr(program_rows, "_compile", compile_program)
  bad = {**case, "model": "bad"}
  with pytest.raises(UserError, match="nothing could be compiled"):
    complete(bad)
  assert not list(tmp_path.iterdir())
  complete(case, bad)
  complete(case)
  assert compiled == [case]
  assert "bad float32 is skipped: too large" in capsys.readouterr().out


def test_faces_that_do_not_fit_are_refused():
  portrait = np.zeros((200, 200, 3), np.uint8)
  portrait[80:120, 80:120] = 255
  box = (80.0, 80.0, 40.0, 40.0)
  with pytest.raises(UserError, match="30 faces of 80 pixels do not fit"):
    face_recall.Photo.create(portrait, box, 80, (120, 100), 30)
  photo = face_recall.Photo.create(portrait, box, 60, (1000, 750), 30)
  pixels, boxes = photo.draw()
  assert len(boxes) == 30
  for x, y, w, h in boxes:
    face = pixels[round(y) : round(y + h), round(x) : round(x + w)]
    assert face.shape[0] == 60 and face[3:-3, 3:-3].min() > 250


@pytest.mark.parametrize("size", ["120", "0x100", "100x", "axb", "100x100x3"])
def test_sizes_of_photos_are_checked(size):
  with pytest.raises(UserError, match=f"photos={size} must be WIDTHxHEIGHT"):
    face_recall._size(size)


def test_the_load_counts_what_a_server_does_not_answer():
  with socket.create_server(("127.0.0.1", 0)) as server:
    address = server.getsockname()

    def close_one() -> None:
      server.accept()[0].close()

    closing = threading.Thread(target=close_one)
    closing.start()
    assert demo_load._statuses(address, b"x", 1) == {"closed": 1}
    closing.join()
  assert demo_load._statuses(address, b"x", 2) == {"refused": 2}
