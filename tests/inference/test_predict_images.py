"""Files and folders: a line for every input, and nothing overwritten."""

import csv
import gzip
import http.server
import itertools
import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from fer_jax import fonts
from fer_jax.data.datasets import fer2013_csv
from fer_jax.errors import UserError
from fer_jax.faces.face import Face
from fer_jax.inference import predict_images, result_writers, web_images
from fer_jax.inference.predict_images import predict_files
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("tiny_model")


def halves(image):
  """Finds the left and the right half of any image but black ones."""
  h, w, _ = image.shape
  left = Face((0, 0, w / 2, h), None, None, 0.9)
  right = Face((w / 2, 0, w / 2, h), None, None, 0.8)
  return [left, right] if image.any() else []


@pytest.fixture
def detector():
  return halves


@pytest.fixture
def folder(images, tmp_path):
  folder = tmp_path / "in"
  (folder / "sub").mkdir(parents=True)
  for i in range(10):
    Image.fromarray(images[i, ..., 0]).save(folder / f"sub/{i}.png")
  Image.new("L", (48, 48)).save(folder / "black.png")
  (folder / "broken.jpg").write_bytes(b"?")
  (folder / "notes.txt").write_text("?")
  (folder / "gone.png").symlink_to("nowhere.png")
  return folder


def test_every_input_has_a_line(folder, predictor, capsys, tmp_path):
  table = tmp_path / "faces.csv"
  counts = predict_files(predictor, [folder], as_json=True, csv=table)
  assert (counts.images, counts.faces, counts.skipped) == (13, 20, 1)
  assert (counts.without_face, counts.unreadable) == (1, 2)
  out, err = capsys.readouterr()
  lines = {line["source"]: line for line in map(json.loads, out.splitlines())}
  assert len(lines) == 13
  assert lines[str(folder / "black.png")]["faces"] == []
  assert "not an image" in lines[str(folder / "broken.jpg")]["error"]
  assert "link" in lines[str(folder / "gone.png")]["error"]
  first, second = lines[str(folder / "sub/3.png")]["faces"]
  assert first["box"] == [0, 0, 24, 48] and second["score"] == 0.8
  assert len(first["probabilities"]) == 7
  assert "notes.txt" in err and "broken.jpg" in err
  rows = list(csv.DictReader(table.read_text().splitlines()))
  assert len(rows) == 23
  assert {row["source"] for row in rows} == set(lines)
  (black,) = (row for row in rows if row["source"].endswith("black.png"))
  assert black["label"] == black["x"] == black["error"] == ""
  (last,) = (row for row in rows[-3:] if row["face"] == "1") or [rows[-1]]
  assert set(last) >= {"probability of a", "width", "score"}


def test_the_table_has_a_line_for_every_input(folder, predictor, capsys):
  predict_files(predictor, [folder])
  head, *lines = capsys.readouterr().out.splitlines()
  assert head.split() == ["image", "box", "expression", "probability"]
  assert len(lines) == 23
  assert sum("no face" in line for line in lines) == 1
  assert sum("unreadable" in line for line in lines) == 2
  predict_files(predictor, [folder / "sub/0.png"], detect=False)
  assert "whole" in capsys.readouterr().out


def test_batches_are_full_across_images(folder, predictor, monkeypatch):
  sizes = []
  probabilities = TrainedModel.probabilities

  def noted(self, images, *args):
    sizes.append(len(images))
    return probabilities(self, images, *args)

  monkeypatch.setattr(TrainedModel, "probabilities", noted)
  predict_files(predictor, [folder], num_workers=3)
  assert sizes == [8, 8, 4]


def test_results_keep_the_order_with_any_number_of_threads(
  folder, predictor, capsys
):
  said = []
  for num_workers in (1, 4):
    predict_files(predictor, [folder], as_json=True, num_workers=num_workers)
    said.append(capsys.readouterr().out)
  assert said[0] == said[1]


def test_own_photos_are_never_replaced(images, predictor, tmp_path):
  own = tmp_path / "me.png"
  Image.fromarray(images[0, ..., 0]).save(own)
  before = own.read_bytes()
  with pytest.raises(UserError, match="me.png is an input"):
    predict_files(predictor, [tmp_path], annotate=tmp_path)
  with pytest.raises(UserError, match="me.png is an input"):
    predict_files(predictor, [own], csv=own)
  foreign = tmp_path / "out/me.png"
  foreign.parent.mkdir()
  foreign.write_bytes(b"someone's")
  with pytest.raises(UserError, match="not made by fer_jax"):
    predict_files(predictor, [own], annotate=foreign.parent)
  assert own.read_bytes() == before and foreign.read_bytes() == b"someone's"


def test_a_second_run_does_not_draw_on_drawings(images, predictor, tmp_path):
  for name in ("a/me.jpg", "b/me.jpg", "b/me.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(images[0, ..., 0]).save(tmp_path / name)
  for output in (tmp_path / "out", tmp_path / "b"):
    counts = [
      predict_files(predictor, [tmp_path], annotate=output).images
      for _ in range(2)
    ]
    assert counts == ([3, 3] if output.name == "out" else [1, 1])
  drawn = sorted((tmp_path / "out").rglob("*.png"))
  names = [path.relative_to(tmp_path / "out").as_posix() for path in drawn]
  assert names == ["a/me.png", "b/me.jpg.png", "b/me.png.png"]
  picture = np.asarray(Image.open(drawn[0]))
  assert (picture == (255, 196, 0)).all(axis=2).any()


def test_a_table_of_pixels_without_labels_is_predicted(
  images, predictor, tmp_path, capsys
):
  rows = [" ".join(map(str, image.ravel())) for image in images[:3]]
  table = tmp_path / "test.csv"
  table.write_text("pixels\n" + "\n".join(rows) + "\n")
  counts = predict_files(predictor, [table], detect=False, as_json=True)
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert counts.faces == 3 and lines[0]["source"] == f"{table}:2"
  expected = predictor.predict(list(images[:3]), detect=False)
  for line, face in zip(lines, expected, strict=True):
    assert line["faces"][0]["label"] == face.label


def test_missing_inputs_are_named(tmp_path, predictor):
  with pytest.raises(UserError, match="x.png does not exist"):
    predict_files(predictor, [tmp_path / "x.png"])
  with pytest.raises(UserError, match="no images in"):
    predict_files(predictor, [tmp_path])


def test_names_of_files_and_classes_are_harmless(
  images, predictor, tmp_path, capsys
):
  path = tmp_path / "=1+1\x1b[31m\udce9.png"
  Image.fromarray(images[0, ..., 0]).save(path)
  table = tmp_path / "faces.csv"
  predict_files(predictor, [tmp_path], as_json=True, csv=table)
  predict_files(predictor, [tmp_path])
  out, err = capsys.readouterr()
  assert "\x1b" not in out + err
  first, *_ = out.splitlines()
  assert json.loads(first)["source"].endswith("\x1b[31m\\udce9.png")
  first.encode("ascii")
  row = next(csv.DictReader(table.read_text("utf-8").splitlines()))
  assert row["source"].endswith(r"=1+1\x1b[31m\xe9.png")


@pytest.fixture
def server(images, tmp_path):
  """Serves a folder on this machine, and odd things beside it."""
  Image.fromarray(images[0, ..., 0]).save(tmp_path / "face.png")
  content = (tmp_path / "face.png").read_bytes()

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
      if self.path == "/moved":
        self.send_response(302)
        self.send_header("Location", "/face.png")
        self.end_headers()
      elif self.path == "/elsewhere":
        self.send_response(302)
        self.send_header("Location", "ftp://127.0.0.1/face.png")
        self.end_headers()
      elif self.path in ("/face.png", "/gr%C3%B6%C3%9Fe.png?q=1%201"):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)
      else:
        self.send_error(404)

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()


def test_urls_are_predicted_within_bounds(
  server, predictor, tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  (local,) = predictor.predict(tmp_path / "face.png", detect=False)
  for name in ("face.png", "moved", "größe.png?q=1 1"):
    (found,) = predictor.predict(f"{server}/{name}", detect=False)
    assert found.probabilities == local.probabilities
  wrong = {"none": "404", "elsewhere": "redirected to ftp"}
  for name, message in wrong.items():
    with pytest.raises(UserError, match=message):
      predictor.predict(f"{server}/{name}")
  with pytest.raises(UserError, match="larger than"):
    web_images.download(f"{server}/face.png", max_bytes=10)
  with pytest.raises(UserError, match="cannot be downloaded"):
    web_images.download("http://127.0.0.1:1/a.png", timeout=2)


def test_an_image_is_downloaded_once_and_drawn_beside_others(
  server, predictor, tmp_path, monkeypatch
):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  (tmp_path / "face.png").rename(tmp_path / "url1.png")
  downloaded, download = [], web_images.download

  def once(url):
    assert url not in downloaded
    downloaded.append(url)
    return download(url)

  monkeypatch.setattr(web_images, "download", once)
  counts = predict_files(
    predictor,
    [tmp_path / "url1.png", f"{server}/face.png", f"{server}/face.png"],
    annotate=tmp_path / "out",
  )
  assert (counts.images, counts.faces, counts.not_drawn) == (2, 4, 0)
  drawn = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
  assert drawn == ["url1-2.png", "url1.png"]


def test_an_image_that_vanishes_costs_its_drawing(
  folder, images, predictor, tmp_path, capsys
):
  def removing(image):
    if (image[..., :1] == images[3]).all():
      (folder / "sub/3.png").unlink()
    return halves(image)

  vanishing = Predictor(predictor.trained, detector=removing)
  counts = predict_files(vanishing, [folder / "sub"], annotate=tmp_path / "out")
  assert counts.faces == 20 and counts.not_drawn == 1
  assert "cannot draw" in capsys.readouterr().err


@pytest.mark.parametrize(
  "stop", [KeyboardInterrupt, UserError, BrokenPipeError]
)
def test_what_was_predicted_is_kept(stop, folder, predictor, tmp_path):
  class Stopped(Predictor):
    def stream(self, *arguments, **options):
      yield from itertools.islice(super().stream(*arguments, **options), 5)
      raise stop

  stopped = Stopped(predictor.trained, detector=halves)
  with pytest.raises(stop):
    predict_files(stopped, [folder], csv=tmp_path / "faces.csv")
  rows = csv.DictReader((tmp_path / "faces.csv").read_text().splitlines())
  assert len({row["source"] for row in rows}) == 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_disk_behind_stdout_is_not_the_csv_files(
  folder, predictor, tmp_path, monkeypatch
):
  table = tmp_path / "faces.csv"
  with open("/dev/full", "w") as full, open(os.devnull, "w") as nothing:
    monkeypatch.setattr("sys.stdout", full)
    with pytest.raises(UserError, match="cannot print to stdout: No space"):
      predict_files(predictor, [folder], as_json=True, csv=table)
    os.dup2(nothing.fileno(), full.fileno())
  rows = list(csv.DictReader(table.read_text().splitlines()))
  assert len({row["source"] for row in rows}) == 1


def test_a_terminal_that_is_gone_does_not_end_a_prediction(
  folder, predictor, tmp_path, monkeypatch
):
  read, write = os.pipe()
  os.close(read)
  with open(write, "w", buffering=1) as gone, open(os.devnull, "w") as nothing:
    monkeypatch.setattr("sys.stderr", gone)
    counts = predict_files(predictor, [folder], csv=tmp_path / "faces.csv")
    os.dup2(nothing.fileno(), gone.fileno())
  assert counts.unreadable == 2 and (tmp_path / "faces.csv").exists()


def test_a_reader_that_left_is_not_taken_for_a_full_disk(
  folder, predictor, tmp_path, monkeypatch
):
  def broken(line):
    raise BrokenPipeError

  monkeypatch.setattr(result_writers, "_print", broken)
  with pytest.raises(BrokenPipeError):
    predict_files(predictor, [folder], csv=tmp_path / "out/faces.csv")
  assert not any((tmp_path / "out").iterdir())


def test_wrong_rows_of_a_table_are_unreadable(
  images, predictor, tmp_path, capsys
):
  row = " ".join(map(str, images[0].ravel()))
  table = tmp_path / "test.csv"
  table.write_text(f"id,pixels\n1,{row}\n2,1 x\n3,{row}\n4\n5,{row}\n")
  counts = predict_files(predictor, [table], detect=False)
  assert (counts.faces, counts.unreadable) == (2, 2)
  err = capsys.readouterr().err
  assert f"{table}:3: pixel 'x' is not" in err
  assert "the table ends here" in err and "line 5: 1 fields" in err


def test_class_names_without_a_font_are_numbered(
  images, predictor, tmp_path, monkeypatch, caplog
):
  fonts.drawable_labels.cache_clear()
  names = tuple(f"\U000fabc1{i}" for i in range(7))  # private use
  labels = fonts.drawable_labels(names)
  assert labels.text(names[3]) == "#3" and "#3 = " in labels.legend
  object.__setattr__(predictor.trained, "class_names", names)
  for i in range(3):
    Image.fromarray(images[i, ..., 0]).save(tmp_path / f"{i}.png")
  predict_files(predictor, [tmp_path], annotate=tmp_path / "out")
  assert len(caplog.records) == 1
  legend = (tmp_path / "out/legend.txt").read_text()
  assert legend.splitlines()[6].startswith("#6 = ")


def test_names_of_common_scripts_have_a_font():
  labels = fonts.drawable_labels(("ł", "кот", "χαρά"))
  assert labels.text("кот") == "кот" and not labels.legend


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_tables_of_pixels_are_read_plain_and_compressed(tmp_path, compress):
  path = tmp_path / ("test.csv.gz" if compress is gzip.compress else "test.csv")
  row = " ".join(["7"] * 48 * 48)
  path.write_bytes(compress(f"pixels\n{row}\n\n{row}\n".encode()))
  assert fer2013_csv.is_image_table(path)
  named = list(predict_images._table_images(path))
  assert [image.name for image in named] == [f"{path}:2", f"{path}:4"]
  path.write_bytes(b"a,b\n")
  assert not fer2013_csv.is_image_table(path)
