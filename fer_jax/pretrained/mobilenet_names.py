"""Names of layers in the reference MobileNets.

Each function returns {our layer: its name in the library}, `v1_*` for MobileNet
v1 and `v2_*` for MobileNetV2.
"""

from collections.abc import Sequence

# Number of blocks per stage. timm numbers the blocks within a stage, the other
# libraries over all stages.
V1_STAGES = (1, 2, 2, 6, 2)
V2_STAGES = (1, 2, 3, 4, 3, 3, 1)


def v1_timm() -> dict[str, str]:
  """Returns the names in timm's `mobilenetv1_100`: `blocks.1.0.conv_dw`."""
  names = {"conv1": "conv_stem", "bn1": "bn1", "fc": "classifier"}
  for n, (stage, i) in enumerate(_block_positions(V1_STAGES), start=1):
    theirs = f"blocks.{stage}.{i}"
    names[f"block{n}/depthwise_conv"] = f"{theirs}.conv_dw"
    names[f"block{n}/depthwise_bn"] = f"{theirs}.bn1"
    names[f"block{n}/pointwise_conv"] = f"{theirs}.conv_pw"
    names[f"block{n}/pointwise_bn"] = f"{theirs}.bn2"
  return names


def v1_hugging_face() -> dict[str, str]:
  """Returns the names in transformers' MobileNetV1ForImageClassification.

  A layer is a single convolution there: two per block.

  >>> v1_hugging_face()["block2/pointwise_conv"]
  'mobilenet_v1.layer.3.convolution'
  """
  names = {
    "conv1": "mobilenet_v1.conv_stem.convolution",
    "bn1": "mobilenet_v1.conv_stem.normalization",
    "fc": "classifier",
  }
  for n in range(1, sum(V1_STAGES) + 1):
    for part, layer in ("depthwise", 2 * n - 2), ("pointwise", 2 * n - 1):
      theirs = f"mobilenet_v1.layer.{layer}"
      names[f"block{n}/{part}_conv"] = f"{theirs}.convolution"
      names[f"block{n}/{part}_bn"] = f"{theirs}.normalization"
  return names


def v1_keras() -> dict[str, str]:
  """Returns the names in keras.applications.MobileNet.

  Its classifier is a convolution.
  """
  names = {"conv1": "conv1", "bn1": "conv1_bn", "fc": "conv_preds"}
  for n in range(1, sum(V1_STAGES) + 1):
    for part, theirs in ("depthwise", "conv_dw"), ("pointwise", "conv_pw"):
      names[f"block{n}/{part}_conv"] = f"{theirs}_{n}"
      names[f"block{n}/{part}_bn"] = f"{theirs}_{n}_bn"
  return names


def v2_torchvision() -> dict[str, str]:
  """Returns the names in torchvision's `mobilenet_v2`: `features.2.conv.0.0`.

  The linear convolution at the end of a block is not grouped with its norm.

  >>> v2_torchvision()["block1/project_conv"]
  'features.1.conv.1'
  >>> v2_torchvision()["block2/project_bn"]
  'features.2.conv.3'
  """
  num_blocks = sum(V2_STAGES)
  names = {
    "conv1": "features.0.0",
    "bn1": "features.0.1",
    "conv_last": f"features.{num_blocks + 1}.0",
    "bn_last": f"features.{num_blocks + 1}.1",
    "fc": "classifier.1",
  }
  for n in range(1, num_blocks + 1):
    parts = _v2_parts(n)
    for k, part in enumerate(parts[:-1]):
      names[f"block{n}/{part}_conv"] = f"features.{n}.conv.{k}.0"
      names[f"block{n}/{part}_bn"] = f"features.{n}.conv.{k}.1"
    last = len(parts) - 1
    names[f"block{n}/project_conv"] = f"features.{n}.conv.{last}"
    names[f"block{n}/project_bn"] = f"features.{n}.conv.{last + 1}"
  return names


def v2_timm() -> dict[str, str]:
  """Returns the names in timm's `mobilenetv2_100`: `blocks.1.0.conv_pwl`."""
  names = {
    "conv1": "conv_stem",
    "bn1": "bn1",
    "conv_last": "conv_head",
    "bn_last": "bn2",
    "fc": "classifier",
  }
  for n, (stage, i) in enumerate(_block_positions(V2_STAGES), start=1):
    theirs = f"blocks.{stage}.{i}"
    # The first block has no expansion: its projection is its only 1x1.
    convs = ("conv_dw", "conv_pw") if n == 1 else _TIMM_CONVS
    for k, (part, conv) in enumerate(
      zip(_v2_parts(n), convs, strict=True), start=1
    ):
      names[f"block{n}/{part}_conv"] = f"{theirs}.{conv}"
      names[f"block{n}/{part}_bn"] = f"{theirs}.bn{k}"
  return names


_TIMM_CONVS = ("conv_pw", "conv_dw", "conv_pwl")


def v2_hugging_face() -> dict[str, str]:
  """Returns the names in transformers' MobileNetV2ForImageClassification.

  The first block is part of the stem there.
  """
  parts = {
    "expand": "expand_1x1",
    "depthwise": "conv_3x3",
    "project": "reduce_1x1",
  }
  convs = {
    "conv1": "conv_stem.first_conv",
    "conv_last": "conv_1x1",
  }
  for n in range(1, sum(V2_STAGES) + 1):
    theirs = "conv_stem" if n == 1 else f"layer.{n - 2}"
    for part in _v2_parts(n):
      convs[f"block{n}/{part}_conv"] = f"{theirs}.{parts[part]}"
  names = {"fc": "classifier"}
  for ours, theirs in convs.items():
    names[ours] = f"mobilenet_v2.{theirs}.convolution"
    names[ours.replace("conv", "bn")] = f"mobilenet_v2.{theirs}.normalization"
  return names


def v2_keras() -> dict[str, str]:
  """Returns the names in keras.applications.MobileNetV2: `block_1_expand`."""
  names = dict(_V2_KERAS)
  for n in range(1, sum(V2_STAGES) + 1):
    theirs = "expanded_conv" if n == 1 else f"block_{n - 1}"
    for part in _v2_parts(n):
      names[f"block{n}/{part}_conv"] = f"{theirs}_{part}"
      names[f"block{n}/{part}_bn"] = f"{theirs}_{part}_BN"
  return names


def v2_keras_2018() -> dict[str, str]:
  """Returns the names in that model's first release: `bn1_conv_1_bn_expand`."""
  names = dict(_V2_KERAS)
  for n in range(1, sum(V2_STAGES) + 1):
    k = n - 1
    for part in _v2_parts(n):
      names[f"block{n}/{part}_conv"] = f"mobl{k}_conv_{k}_{part}"
      names[f"block{n}/{part}_bn"] = f"bn{k}_conv_{k}_bn_{part}"
  return names


_V2_KERAS = {
  "conv1": "Conv1",
  "bn1": "bn_Conv1",
  "conv_last": "Conv_1",
  "bn_last": "Conv_1_bn",
  "fc": "predictions",
}


def _v2_parts(n: int) -> tuple[str, ...]:
  """Returns the convolutions of block `n`, counted from 1."""
  parts = ("expand", "depthwise", "project")
  return parts[1:] if n == 1 else parts


def _block_positions(stages: Sequence[int]) -> list[tuple[int, int]]:
  """Returns the stage of each block and its index in the stage.

  >>> _block_positions((1, 2))
  [(0, 0), (1, 0), (1, 1)]
  """
  return [(stage, i) for stage, size in enumerate(stages) for i in range(size)]
