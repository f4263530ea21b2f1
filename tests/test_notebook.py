"""The notebook runs from top to bottom, and names only what there is."""

import ast
import copy
import io
import json
import pathlib
import re
import sys
import zipfile
from types import ModuleType, SimpleNamespace
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

import fer_jax
from fer_jax.data.datasets import class_names, registry

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "colab.ipynb"

# What the notebook may import; the rest it calls as `fer_jax.NAME`.
PUBLIC = {
  "fer_jax",
  "fer_jax.data.datasets.synthetic_faces.draw_faces",
  "fer_jax.data.image_inputs.list_inputs",
}
# Modules of configs/ that recipes share.
SHARED = {"__init__", "default", "jiang", "lewis", "pan", "sutton"}
# One epoch of three steps; a network of one convolution compiles in seconds.
TINY = {
  "dataset.num_train": 96,
  "dataset.num_validation": 32,
  "dataset.num_test": 32,
  "input.image_size": 16,
  "model.name": "leaky_cnn",
  "model.widths": (8,),
  "model.dense": 16,
  "num_epochs": 1,
  "eval_batch_size": 32,
}


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
  return nbformat.read(NOTEBOOK, as_version=4)


def cell(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
  (found,) = (each for each in notebook.cells if each.id == name)
  return found


def code(notebook: nbformat.NotebookNode) -> list[str]:
  return [each.source for each in notebook.cells if each.cell_type == "code"]


def python(source: str) -> ast.Module:
  """The Python of a cell, its shell commands and magics left out."""
  joined = source.replace("\\\n", " ")
  return ast.parse(re.sub(r"(?m)(^ *|= *)[!%].*$", r"\g<1>0", joined))


def commands(notebook: nbformat.NotebookNode) -> list[str]:
  joined = "\n".join(code(notebook)).replace("\\\n", " ")
  return re.findall(r"(?m)(?:^ *|= *)!(.*)$", joined)


def defaults(notebook: nbformat.NotebookNode) -> dict[str, str]:
  """The form's fields, with the values they have in the file."""
  found = {}
  for node in python(cell(notebook, "parameters").source).body:
    assert isinstance(node, ast.Assign) and isinstance(
      node.targets[0], ast.Name
    )
    found[node.targets[0].id] = ast.literal_eval(node.value)
  return found


def choices(notebook: nbformat.NotebookNode, field: str) -> list[str]:
  """What the form offers for a field."""
  source = cell(notebook, "parameters").source
  match = re.search(rf"(?m)^{field} = .*# @param (\[.*\])", source)
  assert match
  return ast.literal_eval(match[1])


def test_the_file_is_clean(notebook):
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  for each in notebook.cells:
    assert re.fullmatch("[a-z-]+", each.id), "an id that says nothing"
    assert not each.get("outputs") and each.get("execution_count") is None


def test_it_imports_only_what_is_public(notebook):
  used = set()
  for source in code(notebook):
    for node in ast.walk(python(source)):
      if isinstance(node, ast.Import):
        used |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        used |= {f"{node.module}.{alias.name}" for alias in node.names}
  assert {name for name in used if name.startswith("fer_jax")} == PUBLIC


def test_its_commands_and_functions_exist(notebook):
  for command in commands(notebook):
    assert "-m fer_jax" not in command  # The API does that.
    for script in re.findall(r"\{clone\}/(\S+\.py)", command):
      assert (ROOT / script).is_file(), script
  called = set(re.findall(r"\bfer_jax\.(\w+)\(", "\n".join(code(notebook))))
  assert called <= set(fer_jax.__all__)
  assert {"train_and_evaluate", "evaluate_model", "load_model"} <= called


def test_its_form_offers_what_there_is(notebook):
  recipes = {path.stem for path in (ROOT / "configs").glob("*.py")} - SHARED
  assert set(choices(notebook, "RECIPE")) == recipes
  assert set(choices(notebook, "DATASET")) == set(registry.available())
  for field, value in defaults(notebook).items():
    if field not in ("REPOSITORY", "FIELDS", "WORKDIR"):
      assert value in choices(notebook, field)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Where the notebook runs."""
  return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def executed(notebook, folder) -> nbformat.NotebookNode:
  """The notebook after a run in a kernel, its fields set to be quick."""
  fields: dict[str, Any] = {
    "FIELDS": TINY | {"dataset.data_dir": str(folder / "prepared")},
    "WORKDIR": "runs/of a day",
  }
  assert fields.keys() <= defaults(notebook).keys()
  run = copy.deepcopy(notebook)
  place = run.cells.index(cell(run, "parameters")) + 1
  set_fields = "\n".join(f"{k} = {v!r}" for k, v in fields.items())
  run.cells.insert(place, nbformat.v4.new_code_cell(set_fields))
  with pytest.MonkeyPatch.context() as patch:
    patch.delenv("XLA_FLAGS")  # of these tests' fake devices
    patch.setenv("IPYTHONDIR", str(folder / "ipython"))
    nbclient.NotebookClient(
      run,
      kernel_name="python3",
      resources={"metadata": {"path": str(folder)}},
      timeout=600,
    ).execute()
  return run


def texts(notebook: nbformat.NotebookNode, name: str) -> str:
  """What a cell printed."""
  outputs = cell(notebook, name).outputs
  return "".join(o.text for o in outputs if o.output_type == "stream")


def num_pictures(notebook: nbformat.NotebookNode, name: str) -> int:
  """How many pictures a cell showed."""
  outputs = cell(notebook, name).outputs
  return sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize("in_colab", [False, True])
def test_only_colab_installs_extras_again(
  notebook, folder, monkeypatch, in_colab
):
  asked: list[str] = []
  shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append(line))
  if in_colab:
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("colab"))
  monkeypatch.chdir(folder)
  source = cell(notebook, "install").source
  exec(
    TransformerManager().transform_cell(source),
    {"get_ipython": lambda: shell, "REPOSITORY": "URL", "EXTRAS": "tpu"},
  )
  new = '--quiet "fer_jax[{EXTRAS}] @ git+{REPOSITORY}"'
  assert asked == ([f"install {new}"] if in_colab else [])


def upload(notebook, monkeypatch, folder, names: list[str], **fields: str):
  """Runs the data cell, as if in Colab these files were chosen."""
  colab: Any = ModuleType("google.colab")
  colab.files, colab.drive = SimpleNamespace(upload=lambda: names), None
  monkeypatch.setitem(sys.modules, "google.colab", colab)
  monkeypatch.chdir(folder)
  found: dict[str, Any] = defaults(notebook) | {"DATA_DIR": "upload"} | fields
  found |= {"IN_COLAB": True, "pathlib": pathlib}
  exec(cell(notebook, "data").source, found)
  return found["DATA_DIR"]


@pytest.mark.parametrize("prefix", ["", "faces/"])
def test_own_faces_are_uploaded_as_a_zip(
  notebook, monkeypatch, tmp_path, prefix
):
  with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
    archive.writestr("__MACOSX/._joy", b"")
    archive.writestr("../outside.png", b"")
    for name in ("joy/0.png", "joy/1.png", "fear/0.png", "fear/1.png"):
      Image.new("L", (48, 48)).save(file := io.BytesIO(), "png")
      archive.writestr(prefix + name, file.getvalue())
  (tmp_path / "run").mkdir()
  place = upload(
    notebook, monkeypatch, tmp_path / "run", ["../mine.zip"], DATASET="folder"
  )
  assert not (tmp_path / "outside.png").exists()
  faces = fer_jax.load_dataset(
    "folder",
    manual_dir=place,
    data_dir=tmp_path / "prepared",
    holdout_validation=0.5,
  )
  assert faces.class_names == ("fear", "joy")
  assert len(faces.split("train")) == len(faces.split("validation")) == 2


def test_other_uploads_stay_as_they_are(notebook, monkeypatch, tmp_path):
  names = ["archive (1).zip"]
  place = upload(notebook, monkeypatch, tmp_path, names, DATASET="fer2013")
  assert place == "archive (1).zip"
  names = ["fer2013.csv", "fer2013new.csv"]
  place = upload(notebook, monkeypatch, tmp_path, names, DATASET="ferplus")
  assert place == "."
  with pytest.raises(SystemExit, match="folder needs a zip, not a.png"):
    upload(notebook, monkeypatch, tmp_path, ["a.png"], DATASET="folder")


def test_kaggle_has_fer2013(notebook, monkeypatch, tmp_path):
  kaggle: Any = ModuleType("kagglehub")
  kaggle.dataset_download = lambda name: f"cache/{name}/versions/1"
  monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
  fields = {"DATA_DIR": "kaggle", "DATASET": "fer2013"}
  place = upload(notebook, monkeypatch, tmp_path, [], **fields)
  assert place == "cache/msambare/fer2013/versions/1"
  with pytest.raises(SystemExit, match="kaggle is for fer2013, not for jaffe"):
    upload(
      notebook, monkeypatch, tmp_path, [], DATA_DIR="kaggle", DATASET="jaffe"
    )


def test_a_cpu_is_told_what_it_lacks(executed):
  assert "already installed" in texts(executed, "install")
  assert "\ncpu [CpuDevice" in texts(executed, "devices")
  assert "Change runtime type" in texts(executed, "devices")


def test_nothing_warns(executed):
  for each in executed.cells:
    for output in each.get("outputs", []):
      assert "warning" not in output.get("text", "").lower(), each.id


def test_it_trains(executed, folder):
  assert "best epoch 1 of 1" in texts(executed, "train")
  assert num_pictures(executed, "train") == 1
  workdir = folder / "runs" / "of a day"
  assert list((workdir / "checkpoints" / "best").glob("*/variables"))
  config = json.loads((workdir / "config.json").read_text())
  assert config["model"]["name"] == "leaky_cnn"


def test_it_evaluates_and_explains(executed, folder):
  workdir = folder / "runs" / "of a day"
  assert "accuracy" in texts(executed, "evaluate")
  assert num_pictures(executed, "evaluate") == 4
  assert "of a day" in (workdir / "report" / "index.html").read_text()
  assert num_pictures(executed, "explain") == 1
  assert np.asarray(Image.open(workdir / "gradcam.png")).std() > 0


def test_it_predicts_what_drawn_faces_express(executed):
  said = texts(executed, "predict").split()
  assert len(said) == 2 * 7
  assert set(said[::2]) <= set(class_names.FER2013_CLASSES)
  assert num_pictures(executed, "predict") == 7


def test_it_exports(executed, folder):
  made = folder / "runs" / "of a day" / "export"
  assert (made / "model_cpu.stablehlo").stat().st_size > 0
  assert (made / "model_gpu_tpu.stablehlo").stat().st_size > 0
  assert not cell(executed, "benchmark").outputs
