"""The commands on a trained model: what they leave, what users get wrong."""

import csv
import dataclasses
import json
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax.export
import numpy as np
import onnxruntime
import pytest
from ml_collections import ConfigDict
from PIL import Image

from fer_jax.configs import default
from fer_jax.data import load
from fer_jax.data.datasets import class_names
from fer_jax.training import train_loop

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = ("evaluate", "predict", "explain", "export")
SIZES: dict[str, Any] = {"num_train": 64, "num_validation": 24, "num_test": 8}

# Commands are processes of their own, but forked from one that has imported
# all of this, which takes seconds.
_processes = multiprocessing.get_context("forkserver")
_IMPORTS = [
  *(f"fer_jax.{name}" for name in (*COMMANDS, "sweep", "sweeps.search")),
  "tensorflow_datasets",
]


@dataclasses.dataclass
class Done:
  """How a command ended."""

  status: int | None
  out: str
  err: str


Run = Callable[..., Done]


def config(folder: pathlib.Path) -> ConfigDict:
  """A network of one convolution, on a few faces drawn in code."""
  tiny = default.get_config()
  tiny.model.name = "leaky_cnn"
  tiny.model.widths = (8,)
  tiny.model.dense = 16
  tiny.dataset.name = "synthetic_faces"
  tiny.dataset.update(SIZES)
  tiny.dataset.data_dir = str(folder / "prepared")
  tiny.input.image_size = 16
  tiny.parallel = "jit"
  tiny.eval_batch_size = 8
  tiny.num_epochs = 1
  return tiny.lock()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Where commands run: with a run, images, and things that are neither."""
  folder = tmp_path_factory.mktemp("commands")
  train_loop.train_and_evaluate(config(folder), folder / "run")
  (folder / "images" / "sub").mkdir(parents=True)
  for i, image in enumerate(validation(folder)["image"][:3]):
    place = "images/sub" if i else "images"
    Image.fromarray(image[..., 0]).save(folder / place / f"{i}.png")
  (folder / "images" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
  (folder / "images" / "empty.png").touch()
  (folder / "images" / "notes.txt").write_text("no image, by its name")
  (folder / "file").write_text("neither a run nor an image")
  for name in ("hollow", "hol,low"):
    (folder / name / "checkpoints").mkdir(parents=True)
  (folder / "links").mkdir()
  (folder / "links" / "gone.png").symlink_to("nowhere.png")
  (folder / "recipe.py").write_text(
    "from fer_jax.configs import default\nget_config = default.get_config\n"
  )
  (folder / "space.py").write_text(
    "def get_space():\n  return {'optimizer.learning_rate': 0.1}\n"
  )
  return folder


def validation(folder: pathlib.Path) -> dict[str, np.ndarray]:
  prepared = str(folder / "prepared")
  data = load("synthetic_faces", data_dir=prepared, **SIZES)
  return data.split("validation").arrays()


@pytest.fixture(scope="module")
def run(folder: pathlib.Path) -> Run:
  """Runs a command: `run("predict", "--workdir=run", "images")`."""
  with pytest.MonkeyPatch.context() as patch:
    for name, value in environment(folder).items():
      patch.setenv(name, value)
    _processes.set_forkserver_preload(_IMPORTS)
    multiprocessing.forkserver.ensure_running()

  def run(name: str, *arguments: str) -> Done:
    process = _processes.Process(target=_main, args=(folder, name, arguments))
    process.start()
    process.join()
    out, err = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return Done(process.exitcode, out, err)

  return run


def environment(folder: pathlib.Path) -> dict[str, str]:
  """One device, as users have it, and programs compiled once for all."""
  return {
    "XLA_FLAGS": "",
    "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
  }


def _main(folder: pathlib.Path, name: str, arguments: tuple[str, ...]) -> None:
  """What `python -m fer_jax.NAME ARGUMENTS` does once Python has started."""
  os.chdir(folder)
  for descriptor, file in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
  # As it is in a process that was not forked.
  multiprocessing.set_start_method("fork", force=True)
  sys.argv = [name, *arguments]
  runpy.run_path(str(ROOT / "fer_jax" / f"{name}.py"), run_name="__main__")


def run_alone(folder: pathlib.Path, name: str, *arguments: str) -> Done:
  """As `run`, in the way that users start it."""
  done = subprocess.run(
    [sys.executable, "-m", f"fer_jax.{name}", *arguments],
    cwd=folder,
    env=os.environ | environment(folder),
    capture_output=True,
    text=True,
  )
  return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def evaluated(run: Run) -> Done:
  return run("evaluate", "--workdir=run", "--split=validation")


@pytest.fixture(scope="module")
def probabilities(folder: pathlib.Path, evaluated: Done) -> np.ndarray:
  """Of the validation split, as `evaluate` wrote them."""
  with open(folder / "run/report/validation_predictions.csv") as f:
    rows = list(csv.DictReader(f))
  return np.array(
    [[float(row[name]) for name in class_names.FER2013_CLASSES] for row in rows]
  )


def test_evaluate_finds_what_training_found(folder, evaluated, probabilities):
  assert (evaluated.status, evaluated.err) == (0, "")
  assert "wrote run/report/index.html" in evaluated.out
  lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
  trained = json.loads(lines[-1])["validation_accuracy"]
  metrics = json.loads((folder / "run/report/metrics.json").read_text())
  assert metrics["validation"]["accuracy"] == pytest.approx(trained)
  right = probabilities.argmax(axis=1) == validation(folder)["target"]
  assert right.mean() == pytest.approx(trained)
  assert "<h1" in (folder / "run/report/index.html").read_text()


def test_predict_answers_for_what_can_be_read(folder, probabilities):
  done = run_alone(
    folder,
    "predict",
    "--workdir=run",
    "images",
    "--no-detect",
    "--json",
    "--annotate=drawn",
  )
  answers = [json.loads(line) for line in done.out.splitlines()]
  sources = ["0.png", "broken.jpg", "empty.png", "sub/1.png", "sub/2.png"]
  assert [answer["source"] for answer in answers] == [
    f"images/{name}" for name in sources
  ]
  assert answers[1]["faces"] == [] and "not an image" in answers[1]["error"]
  faces = [answer["faces"][0] for answer in answers if answer["faces"]]
  for face, expected in zip(faces, probabilities, strict=False):
    found = [face["probabilities"][k] for k in class_names.FER2013_CLASSES]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert face["label"] == class_names.FER2013_CLASSES[expected.argmax()]
    assert face["box"] is None
  broken, empty, skipped, counts, error = done.err.splitlines()
  assert skipped.startswith("skipped 1 not an image (images/")
  assert broken.startswith("cannot read images/broken.jpg: ")
  assert empty.startswith("cannot read images/empty.png: ")
  assert "3 faces in 5 images" in counts and "unreadable 2" in counts
  assert error == "error: 2 of 5 images could not be read"
  assert done.status == 1
  drawn = sorted((folder / "drawn").rglob("*.png"))
  assert [path.relative_to(folder / "drawn").as_posix() for path in drawn] == [
    "0.png",
    "sub/1.png",
    "sub/2.png",
  ]


def test_predict_prints_a_table(run, probabilities):
  done = run("predict", "--workdir=run", "images/sub/1.png", "--no-detect")
  _, row = done.out.splitlines()
  best = probabilities[1].argmax()
  assert row.split()[:3] == [
    "images/sub/1.png",
    "whole",
    class_names.FER2013_CLASSES[best],
  ]
  assert done.status == 0


def test_predict_counts_images_without_a_face(run, folder):
  Image.new("L", (64, 64), 128).save(folder / "grey.png")
  done = run("predict", "--workdir=run", "grey.png", "--json")
  assert done.status == 0
  assert json.loads(done.out) == {"source": "grey.png", "faces": []}
  assert "no face 1" in done.err


@pytest.mark.parametrize(
  "images", [["--count=2", "--checkpoint=latest"], ["images/sub", "--nodetect"]]
)
def test_explain_draws_a_map_beside_each_image(run, folder, images):
  done = run("explain", "--workdir=run", *images, "--output=maps/sheet.png")
  assert (done.status, done.err) == (0, "")
  assert "wrote maps/sheet.png" in done.out
  sheet = np.asarray(Image.open(folder / "maps" / "sheet.png"))
  coloured = sheet.max(axis=2) != sheet.min(axis=2)
  assert coloured.sum() > 2 * 48 * 48


def test_explain_looks_for_faces(run, folder):
  Image.new("L", (64, 64), 128).save(folder / "gray.png")
  done = run("explain", "--workdir=run", "gray.png")
  assert done.status == 1
  assert done.err.splitlines() == [
    "gray.png: no face found",
    "error: no face found: --no-detect takes each image as one face",
  ]


def test_explain_draws_what_can_be_read(run, folder):
  options = ("--workdir=run", "--nodetect", "--output=maps/some.png")
  done = run("explain", *options, "images", "links")
  assert done.status == 1 and (folder / "maps/some.png").is_file()
  assert "cannot read images/empty.png: empty" in done.err
  assert "error: 3 of 6 images could not be read" in done.err
  done = run("explain", *options, "images/empty.png")
  assert done.status == 1
  assert done.err.splitlines()[1:] == ["error: no image could be read"]


def test_export_writes_programs_that_agree(folder, probabilities):
  done = run_alone(folder, "export", "--workdir=run", "--output=programs")
  assert (done.status, done.err) == (0, "")
  listed = [line.split()[0] for line in done.out.splitlines()]
  assert sorted(listed) == [
    f"programs/{name}"
    for name in (
      "README.md",
      "model.json",
      "model_cpu.stablehlo",
      "model_gpu_tpu.stablehlo",
    )
  ]
  program = jax.export.deserialize(
    bytearray((folder / "programs" / "model_cpu.stablehlo").read_bytes())
  )
  found = program.call(validation(folder)["image"])
  np.testing.assert_allclose(found, probabilities, atol=2e-6)


def test_export_writes_an_onnx_file_that_agrees(run, folder, probabilities):
  done = run("export", "--workdir=run", "--output=onnx", "--format=onnx")
  assert (done.status, done.err) == (0, "")
  assert done.out.startswith("onnx/model.onnx ")
  session = onnxruntime.InferenceSession(
    folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"]
  )
  (found,) = session.run(None, {"images": validation(folder)["image"]})
  np.testing.assert_allclose(found, probabilities, atol=1e-5)


SWEEP = "sweep --config=recipe.py --space=space.py"

# What a user does, and what the one line must have: thing, value, way out.
MISTAKES = [
  ("evaluate --workdir=", "--workdir= names no run", "fer-jax train"),
  ("evaluate --workdir=run --split=test+test", "--split=test+test", "twice"),
  *(
    (f"{name} --workdir=nowhere x.png", "in nowhere: give", "of a run")
    for name in ("predict", "explain")
  ),
  ("evaluate --workdir=nowhere", "in nowhere: give", "of a run"),
  ("evaluate --workdir=run,file", "in file: give", "of a run"),
  ("evaluate --workdir=hol,low", "no best checkpoint", "hol,low", "train"),
  ("export --workdir=hollow", "no best checkpoint", "hollow", "train"),
  ("evaluate x.png", "--workdir is missing", "--help"),
  (
    "predict --workdir=ferplus-tiny x",
    "a released model (did you mean ferplus-resnet18?)",
    "ferplus-resnet18",
  ),
  *(
    (f"{name} --workdir=run --colour=red", "'colour'", "--help")
    for name in COMMANDS
  ),
  *(
    (
      f"{name} --workdir=run --checkpoint=9"
      + (" images" if name == "predict" else ""),
      "--checkpoint '9'",
      "best, latest",
    )
    for name in COMMANDS
  ),
  (
    "evaluate --workdir=run --split=tset",
    "split 'tset'",
    "test, train, validation",
  ),
  (
    "explain --workdir=run --split=tset",
    "split 'tset'",
    "test, train, validation",
  ),
  ("evaluate --workdir=run --tta=all", "--tta 'all'", "flip, none, ten_crop"),
  ("evaluate --workdir=run validation", "'validation'", "--name=value"),
  ("export --workdir=run programs", "'programs'", "--name=value"),
  ("predict --workdir=run", "give images"),
  ("predict --workdir=run --video=", "--video=''", "name a path"),
  ("predict --workdir=run images --csv=", "--csv=''", "name a path"),
  ("predict --workdir=run images --annotate=", "--annotate=''", "name a path"),
  ("predict --workdir=run ''", "image=''", "name a path"),
  ("explain --workdir=run ''", "image=''", "name a path"),
  ("explain --workdir=run --output=", "--output=''", "name a path"),
  ("predict --workdir=run none.png", "none.png does not exist", "name images"),
  ("predict --workdir=run hollow", "no images in hollow", ".jpg"),
  ("predict --workdir=run file --batch-size=0", "--batch_size=0", "positive"),
  ("predict --workdir=run images --annotate", "--annotate", "--help"),
  ("explain --workdir=run hollow", "no images in hollow", ".jpg"),
  ("explain --workdir=run links", "no image can be read", "links/gone.png"),
  ("explain --workdir=run --layer=conv9", "'conv9'", "conv1"),
  ("explain --workdir=run --attention", "leaky_cnn", "cbam_resnet"),
  ("explain --workdir=run --output=maps.jpg", "maps.jpg", ".png"),
  ("export --workdir=run --output=file", "cannot write", "another output"),
  ("export --workdir=run --format=tflite", "--format 'tflite'", "onnx"),
  ("sweep --config=recipe.py", "--space is missing", "--help"),
  ("sweep --space=space.py", "--config is missing", "--help"),
  (
    f"{SWEEP} --workdir=swept --sampler=best",
    "--sampler 'best'",
    "grid, random, tpe",
  ),
  (f"{SWEEP} --workdir=swept --workers=0", "--workers=0", "positive"),
  (f"{SWEEP} --workdir=swept --space=none.py", "--space=none.py", "lewis:grid"),
  (f"{SWEEP} --workdir=swept --config=none.py", "--config=none.py", "resnet50"),
  (f"{SWEEP} --workdir=run", "--workdir=run holds a training run", "another"),
  (f"{SWEEP} --workdir=file", "--workdir=file", "another"),
  (f"{SWEEP} --workdir=swept --config.num_epoch=2", "num_epoch", "num_epochs"),
  (f"{SWEEP} --workdir=swept --config.seed=-1", "--config.seed=-1", "least 0"),
  (f"{SWEEP} --workdir=swept --storage=x://y", "--storage=x://y", "x"),
]


@pytest.mark.parametrize(
  ("command", "told"), [(command, told) for command, *told in MISTAKES]
)
def test_a_mistake_is_one_line(run, command, told):
  done = run(*shlex.split(command))
  assert done.status == 1
  (line,) = done.err.splitlines()
  assert line.startswith("error: ")
  for fragment in told:
    assert fragment in line
  assert done.out == ""


def test_what_another_process_is_saving_stays(run, folder):
  saving = folder / "hollow" / "checkpoints" / "7.orbax-checkpoint-tmp"
  saving.mkdir()
  run("export", "--workdir=hollow")
  assert [path.name for path in saving.parent.iterdir()] == [saving.name]


def test_a_reader_may_leave(folder):
  command = [sys.executable, "-m", "fer_jax.predict", "--workdir=run", "--json"]
  with subprocess.Popen(
    [*command, "--no-detect", "--batch-size=1", "images/sub"],
    cwd=folder,
    env=os.environ | environment(folder),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
