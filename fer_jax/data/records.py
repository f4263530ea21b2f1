"""Reads prepared records into arrays, without tensorflow-datasets' decoders.

These take eight times the work per record, with Python's lock held, so that
several threads that read could not keep up with a GPU.
"""

from typing import Any

import numpy as np
from jaxtyping import Integer
from tensorflow_datasets.proto import tf_example_pb2


def read(
  source: Any, indices: Integer[np.ndarray, " b"]
) -> dict[str, np.ndarray]:
  """Reads records by their position.

  Args:
    source: tensorflow-datasets' data source of array_record files, as
      `FaceBuilder` prepares them.
    indices: positions, in any order; there may be none.

  Returns:
    `image` uint8 `[b h w c]`, `target` int32 `[b]` or float32 `[b k]`, and
    `row` int32 `[b]`.
  """
  features = source.dataset_info.features
  target = features["target"]
  is_label = np.issubdtype(target.np_dtype, np.integer)
  shape = features["image"].shape
  count = len(indices)
  images = np.empty((count, int(np.prod(shape))), np.uint8)
  targets = np.empty(
    (count, *target.shape), np.int32 if is_label else np.float32
  )
  rows = np.empty(count, np.int32)
  places = [int(i) for i in indices]
  records = source.data_source.__getitems__(places) if places else []
  for i, record in enumerate(records):
    feature = tf_example_pb2.Example.FromString(record).features.feature
    image = feature["image"].bytes_list.value[0]
    images[i] = np.frombuffer(image, np.uint8)
    if is_label:
      targets[i] = feature["target"].int64_list.value[0]
    else:
      targets[i] = feature["target"].float_list.value
    rows[i] = feature["row"].int64_list.value[0]
  return {
    "image": images.reshape(count, *shape),
    "target": targets,
    "row": rows,
  }
