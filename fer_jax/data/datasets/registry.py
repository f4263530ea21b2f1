"""Datasets by name: prepared once, then read at random.

>>> "fer2013" in available()
True
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from fer_jax.data import views
from fer_jax.data.records import RecordFiles
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import choose, require
from fer_jax.object_stores import urls

if TYPE_CHECKING:  # tensorflow-datasets takes seconds to import.
  from fer_jax.data.datasets.builder import FaceBuilder

# Name -> "module:class". Modules are imported when they are needed.
DATASETS = {
  "affectnet": "fer_jax.data.datasets.affectnet:AffectNet",
  "ckplus": "fer_jax.data.datasets.ckplus:CkPlus",
  "fer2013": "fer_jax.data.datasets.fer2013:Fer2013",
  "ferplus": "fer_jax.data.datasets.ferplus:FerPlus",
  "folder": "fer_jax.data.datasets.folder:ImageFolder",
  "jaffe": "fer_jax.data.datasets.jaffe:Jaffe",
  "rafdb": "fer_jax.data.datasets.rafdb:RafDb",
  "synthetic_faces": "fer_jax.data.datasets.synthetic_faces:SyntheticFaces",
}


def available() -> list[str]:
  """Returns the names that `load` knows."""
  return sorted(DATASETS)


def builder_class(name: str) -> "type[FaceBuilder]":
  """Returns the builder of a dataset; importing it takes seconds.

  Raises:
    UserError: the name is unknown.
  """
  module, class_name = DATASETS[choose("dataset", name, DATASETS)].split(":")
  return getattr(importlib.import_module(module), class_name)


def default_options(name: str) -> dict[str, Any]:
  """Returns a dataset's own options, with their defaults."""
  return dict(builder_class(name).default_options)


def load(
  name: str,
  *,
  manual_dir: urls.PathLike = "",
  data_dir: urls.PathLike = "",
  verify: bool = False,
  **options: Any,
) -> Dataset:
  """Opens a dataset, and prepares it first if that has not been done.

  Args:
    name: one of `available()`.
    manual_dir: folder of the release's files, or such a file; "" is the manual
      folder of tensorflow-datasets, or else what was prepared before. Datasets
      that need no release ignore it.
    data_dir: folder of prepared files, or its URL on an object store (see
      `remote_data`); "" is tensorflow-datasets' folder.
    verify: compares the contents of the release with those that were prepared,
      and not only the sizes and times of its files.
    **options: options of the dataset, or of the view of it (see
      `views.apply`). None is the option's default.

  Raises:
    UserError: the name or an option is unknown, or the release is missing or
      wrong.

  Example:
    dataset = fer_jax.load_dataset("synthetic_faces", num_train=64)
    images = dataset.split("train").arrays()["image"]  # uint8 [64, 48, 48, 1]
  """
  # Slow to import, and not needed by whoever only loads a model.
  from fer_jax.data.datasets import remote_data

  manual_dir, data_dir = os.fspath(manual_dir), os.fspath(data_dir)
  options = {key: value for key, value in options.items() if value is not None}
  view = {key: options.pop(key) for key in views.OPTIONS if key in options}
  if "fold" in default_options(name):
    for option in sorted(view.keys() & {"holdout_validation", "holdout_test"}):
      must = f"be 0: {name} is split by subject, which a holdout is not;"
      must += " dataset.fold and dataset.num_folds choose the splits"
      require(not view[option], f"dataset.{option}", view[option], must)
  if manual_dir:
    urls.require_local(manual_dir, "dataset.manual_dir", is_input=True)
  builder = builder_class(name)(
    manual_dir=manual_dir,
    data_dir=remote_data.local_folder(data_dir),
    **options,
  )
  remote_data.download(builder, data_dir)
  reader, builder = builder, builder.prepare(verify=verify)
  remote_data.upload(builder, data_dir)
  dataset = Dataset(
    name=name,
    class_names=builder.class_names,
    image_shape=builder.image_shape,
    splits={
      split: Split(split, RecordFiles(builder.info, split))
      for split in builder.info.splits
    },
    # Of the builder that compared the files with what is prepared.
    file_names=reader.file_names(),
  )
  return views.apply(dataset, **view)
