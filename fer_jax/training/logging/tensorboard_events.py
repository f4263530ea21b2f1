"""What is used of tensorboardX, imported without PyTorch.

tensorboardX imports PyTorch where that is installed, as on Colab, which takes
seconds; nothing that is used here needs it.
"""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
  """Makes a module seem not to be installed, unless it is imported already."""
  if module in sys.modules:
    yield
    return
  sys.modules[module] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[module]


with _hidden("torch"):
  from tensorboardX.proto.event_pb2 import Event, SessionLog
  from tensorboardX.record_writer import masked_crc32c
  from tensorboardX.summary import scalar

__all__ = ["Event", "SessionLog", "masked_crc32c", "scalar"]
