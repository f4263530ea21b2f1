"""Blocks of this package's models in PyTorch; see `torch_models`.

Modules have the names of our parameter tree.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELU6 = nn.ReLU6(inplace=True)


def conv(
  inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
  """Returns a convolution without bias that keeps the size at stride 1."""
  return nn.Conv2d(
    inputs, outputs, size, stride, size // 2, groups=groups, bias=False
  )


class CBAM(nn.Module):
  """See `fer_jax.models.cbam`; sequential."""

  def __init__(self, channels: int):
    super().__init__()
    hidden = max(channels // 16, 1)
    self.fc1 = nn.Linear(channels, hidden)
    self.fc2 = nn.Linear(hidden, channels)
    self.conv = conv(2, 1, 7)
    self.bn = nn.BatchNorm2d(1, momentum=0.01)

  def forward(self, x: Tensor) -> Tensor:
    """Returns the weighted feature maps."""
    pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))], 1)
    y = self.fc2(F.relu(self.fc1(pooled))).sum(1)
    x = x * torch.sigmoid(y)[:, :, None, None]
    y = torch.stack([x.amax(1), x.mean(1)], 1)
    return x * torch.sigmoid(self.bn(self.conv(y)))


class Block(nn.Module):
  """Base of residual blocks: the shortcut, and attention before it."""

  def _add_shortcut(
    self, inputs: int, outputs: int, stride: int, attention: bool
  ) -> None:
    self.cbam = CBAM(outputs) if attention else None
    self.downsample_conv = None
    if stride != 1 or inputs != outputs:
      self.downsample_conv = conv(inputs, outputs, 1, stride)
      self.downsample_bn = nn.BatchNorm2d(outputs)

  def _finish(self, x: Tensor, y: Tensor) -> Tensor:
    if self.cbam is not None:
      y = self.cbam(y)
    if self.downsample_conv is not None:
      x = self.downsample_bn(self.downsample_conv(x))
    y += x
    return F.relu(y, inplace=True)


class BasicBlock(Block):
  """Two 3x3 convolutions."""

  def __init__(
    self, inputs: int, features: int, stride: int, attention: bool = False
  ):
    super().__init__()
    self.conv1 = conv(inputs, features, 3, stride)
    self.bn1 = nn.BatchNorm2d(features)
    self.conv2 = conv(features, features, 3)
    self.bn2 = nn.BatchNorm2d(features)
    self._add_shortcut(inputs, features, stride, attention)

  def forward(self, x: Tensor) -> Tensor:
    """Returns feature maps."""
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    return self._finish(x, self.bn2(self.conv2(y)))


class BottleneckBlock(Block):
  """1x1, 3x3 and 1x1 convolution."""

  def __init__(
    self, inputs: int, features: int, stride: int, attention: bool = False
  ):
    super().__init__()
    self.conv1 = conv(inputs, features, 1)
    self.bn1 = nn.BatchNorm2d(features)
    self.conv2 = conv(features, features, 3, stride)
    self.bn2 = nn.BatchNorm2d(features)
    self.conv3 = conv(features, 4 * features, 1)
    self.bn3 = nn.BatchNorm2d(4 * features)
    self._add_shortcut(inputs, 4 * features, stride, attention)

  def forward(self, x: Tensor) -> Tensor:
    """Returns feature maps."""
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = F.relu(self.bn2(self.conv2(y)), inplace=True)
    return self._finish(x, self.bn3(self.conv3(y)))


class InvertedBlock(nn.Module):
  """1x1 expansion, depthwise 3x3 convolution, 1x1 projection."""

  def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
    super().__init__()
    wide = inputs * expansion
    self.expand_conv = None
    if expansion != 1:
      self.expand_conv = conv(inputs, wide, 1)
      self.expand_bn = nn.BatchNorm2d(wide)
    self.depthwise_conv = conv(wide, wide, 3, stride, groups=wide)
    self.depthwise_bn = nn.BatchNorm2d(wide)
    self.project_conv = conv(wide, outputs, 1)
    self.project_bn = nn.BatchNorm2d(outputs)
    self.has_shortcut = stride == 1 and inputs == outputs

  def forward(self, x: Tensor) -> Tensor:
    """Returns feature maps."""
    y = x
    if self.expand_conv is not None:
      y = RELU6(self.expand_bn(self.expand_conv(y)))
    y = RELU6(self.depthwise_bn(self.depthwise_conv(y)))
    y = self.project_bn(self.project_conv(y))
    return x + y if self.has_shortcut else y


class SeparableBlock(nn.Module):
  """Depthwise 3x3 convolution, then a 1x1 convolution."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.depthwise_conv = conv(inputs, inputs, 3, stride, groups=inputs)
    self.depthwise_bn = nn.BatchNorm2d(inputs)
    self.pointwise_conv = conv(inputs, outputs, 1)
    self.pointwise_bn = nn.BatchNorm2d(outputs)

  def forward(self, x: Tensor) -> Tensor:
    """Returns feature maps."""
    x = RELU6(self.depthwise_bn(self.depthwise_conv(x)))
    return RELU6(self.pointwise_bn(self.pointwise_conv(x)))


class JiangHead(nn.Module):
  """See `fer_jax.models.heads`."""

  def __init__(self, inputs: int, num_classes: int):
    super().__init__()
    self.drop1, self.drop2, self.drop3 = (
      nn.Dropout(rate) for rate in (0.5, 0.3, 0.3)
    )
    self.dense1 = nn.Linear(inputs, 2048)
    self.bn1 = nn.BatchNorm1d(2048)
    self.dense2 = nn.Linear(2048, 1024)
    self.bn2 = nn.BatchNorm1d(1024)
    self.fc = nn.Linear(1024, num_classes)

  def forward(self, x: Tensor) -> Tensor:
    """Returns logits."""
    x = self.drop2(RELU6(self.dense1(self.drop1(x))))
    x = RELU6(self.dense2(self.drop3(self.bn1(x))))
    return self.fc(self.bn2(x))
