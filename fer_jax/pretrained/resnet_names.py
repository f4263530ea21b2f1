"""Names of layers in the reference ResNets.

Each function returns {our layer: its name in the library}. `sizes` are the
numbers of blocks per stage, and `num_convs` is the number of convolutions per
block (2, or 3 for bottleneck blocks).
"""

from collections.abc import Iterator, Sequence


def torchvision(sizes: Sequence[int], num_convs: int) -> dict[str, str]:
  """Returns the names in torchvision and timm: `layer1.0.conv1`.

  >>> torchvision((1, 1), 2)["layer2_0/downsample_bn"]
  'layer2.0.downsample.1'
  """
  names = {"conv1": "conv1", "bn1": "bn1", "fc": "fc"}
  for stage, i, projected in _blocks(sizes, num_convs):
    ours, theirs = f"layer{stage + 1}_{i}", f"layer{stage + 1}.{i}"
    for k in range(1, num_convs + 1):
      names[f"{ours}/conv{k}"] = f"{theirs}.conv{k}"
      names[f"{ours}/bn{k}"] = f"{theirs}.bn{k}"
    if projected:
      names[f"{ours}/downsample_conv"] = f"{theirs}.downsample.0"
      names[f"{ours}/downsample_bn"] = f"{theirs}.downsample.1"
  return names


def hugging_face(sizes: Sequence[int], num_convs: int) -> dict[str, str]:
  """Returns the names in transformers' ResNetForImageClassification.

  >>> hugging_face((1, 1), 2)["layer2_0/conv1"]
  'resnet.encoder.stages.1.layers.0.layer.0.convolution'
  """
  names = {
    "conv1": "resnet.embedder.embedder.convolution",
    "bn1": "resnet.embedder.embedder.normalization",
    "fc": "classifier.1",
  }
  for stage, i, projected in _blocks(sizes, num_convs):
    ours = f"layer{stage + 1}_{i}"
    theirs = f"resnet.encoder.stages.{stage}.layers.{i}"
    for k in range(num_convs):
      names[f"{ours}/conv{k + 1}"] = f"{theirs}.layer.{k}.convolution"
      names[f"{ours}/bn{k + 1}"] = f"{theirs}.layer.{k}.normalization"
    if projected:
      names[f"{ours}/downsample_conv"] = f"{theirs}.shortcut.convolution"
      names[f"{ours}/downsample_bn"] = f"{theirs}.shortcut.normalization"
  return names


def _blocks(
  sizes: Sequence[int], num_convs: int
) -> Iterator[tuple[int, int, bool]]:
  """Yields each block's stage, index in it and whether it has a projection.

  The first block of a stage has one if its stride or its channels change the
  shape; in the first stage only bottleneck blocks change the 64 channels.
  """
  for stage, num_blocks in enumerate(sizes):
    for i in range(num_blocks):
      yield stage, i, i == 0 and (stage > 0 or num_convs == 3)
