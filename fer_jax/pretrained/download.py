"""Published ImageNet weights, downloaded once into the user's cache folder.

"timm:resnet50" is a safetensors file of timm on the Hugging Face Hub, which
states its SHA-256. "torchvision:resnet50" is a file of PyTorch, whose name
contains the first digits of its SHA-256, and which needs torch to be read.
"""

import http.client
import importlib.util
import os
import pathlib
import shutil
import tempfile
import urllib.request

from fer_jax import files
from fer_jax.errors import UserError, choose
from fer_jax.pretrained import conversion, converted_weights

TIMM = "https://huggingface.co/timm/{}/{}/main/model.safetensors"
TORCHVISION = "https://download.pytorch.org/models/{}"

# Names in timm, by our model, of weights trained on ImageNet-1k; `tv_in1k` are
# those of torchvision.
TIMM_NAMES = {
  "resnet18": "resnet18.tv_in1k",
  "resnet34": "resnet34.tv_in1k",
  "resnet50": "resnet50.tv_in1k",
  "resnet101": "resnet101.tv_in1k",
  "resnet152": "resnet152.tv_in1k",
  "mobilenet": "mobilenetv1_100.ra4_e3600_r224_in1k",
  "mobilenet_v2": "mobilenetv2_100.ra_in1k",
}
# Files of torchvision's IMAGENET1K_V1 weights, by our model.
TORCHVISION_FILES = {
  "resnet18": "resnet18-f37072fd.pth",
  "resnet34": "resnet34-b627a593.pth",
  "resnet50": "resnet50-0676ba61.pth",
  "resnet101": "resnet101-63fe2227.pth",
  "resnet152": "resnet152-394f9c45.pth",
  "mobilenet_v2": "mobilenet_v2-b0353104.pth",
}
_TIMEOUT = 30  # seconds without data


def is_published(source: str) -> bool:
  """Returns whether a name refers to published weights.

  >>> is_published("timm:resnet50"), is_published("runs/resnet50")
  (True, False)
  """
  return source.startswith(("timm:", "torchvision:"))


def folder_of(source: str) -> pathlib.Path:
  """Returns the folder of converted weights, downloaded if necessary.

  Args:
    source: "timm:MODEL" or "torchvision:MODEL", with our name of the model.

  Raises:
    UserError: the name is unknown, the cache cannot be written, or the file
      cannot be downloaded or read.
  """
  library, _, model = source.partition(":")
  if library == "timm":
    name = TIMM_NAMES[choose("model of timm", model, TIMM_NAMES)]
    url, pointer = TIMM.format(name, "resolve"), TIMM.format(name, "raw")
  else:
    choose("model of torchvision", model, TORCHVISION_FILES)
    name = TORCHVISION_FILES[model]
    url, pointer = TORCHVISION.format(name), ""
  folder = cache() / f"{library}-{name.removesuffix('.pth')}"
  if os.path.isdir(folder):
    return folder
  if library == "torchvision" and not importlib.util.find_spec("torch"):
    raise UserError(
      f"reading {source} needs torch: pip install 'torch>=2.6', or use"
      f" timm:{model}, which does not need it"
    )
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.TemporaryDirectory(dir=folder.parent)
  except OSError as e:
    raise UserError(
      f"cannot write the cache {folder.parent} ({e.strerror}): set"
      " XDG_CACHE_HOME to a folder that can be written, or free space"
    ) from e
  with temporary as scratch:
    try:
      sha256 = _stated_sha256(pointer) if pointer else _sha256_in_name(name)
      path = _download(url, pathlib.Path(scratch) / url.rpartition("/")[2])
    except (OSError, http.client.HTTPException) as e:
      raise UserError(
        f"cannot download {url} ({e}): download it on another machine, run"
        f" fer-jax convert FILE --model={model} --out=weights, and use"
        " init_from=weights"
      ) from e
    _check(path, sha256, url)
    variables, info = conversion.convert_file(path, model)
    try:
      return converted_weights.save(folder, variables, info | {"url": url})
    except UserError:
      if folder.is_dir():  # Another process was faster.
        return folder
      raise


def cache() -> pathlib.Path:
  """Returns the folder of downloaded weights in the user's cache."""
  return files.cache_folder() / "weights"


def _download(url: str, path: pathlib.Path) -> pathlib.Path:
  print(f"downloading {url}", flush=True)
  with (
    urllib.request.urlopen(url, timeout=_TIMEOUT) as response,
    path.open("wb") as file,
  ):
    shutil.copyfileobj(response, file, 1 << 20)
  return path


def _stated_sha256(pointer: str) -> str:
  """Returns the SHA-256 in a Git LFS pointer file."""
  with urllib.request.urlopen(pointer, timeout=_TIMEOUT) as response:
    text = response.read(1024).decode(errors="replace")
  for line in text.splitlines():
    if line.startswith("oid sha256:"):
      return line.removeprefix("oid sha256:").strip()
  raise OSError(f"{pointer} states no SHA-256")


def _sha256_in_name(name: str) -> str:
  """Returns the first digits of the SHA-256, from the file's name.

  >>> _sha256_in_name("resnet18-f37072fd.pth")
  'f37072fd'
  """
  return name.rpartition("-")[2].removesuffix(".pth")


def _check(path: pathlib.Path, sha256: str, url: str) -> None:
  found = files.sha256(path)
  if not found.startswith(sha256):
    raise UserError(
      f"{url} has the SHA-256 {found[:16]}..., but its publisher states"
      f" {sha256[:16]}...: try again later"
    )
