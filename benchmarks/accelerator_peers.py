"""The comparison with PyTorch that accelerator.py makes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peer_variants


def command(case: Mapping[str, Any], output: Path) -> list[str]:
  """Returns the command that times a model beside PyTorch.

  Compiling for all of PyTorch's variants would take the rest of the time, so
  that on a GPU the whole step as one CUDA graph comes first.

  Args:
    case: `model`, `dtype`, and `tiny` to rehearse.
    output: folder of the table.
  """
  given = [
    sys.executable,
    str(Path(__file__).with_name("peers.py")),
    f"--models={case['model']}",
    f"--dtypes={case['dtype']}",
    f"--torch_dtypes={case['dtype']}",
    f"--output={output}",
  ]
  if case["tiny"]:
    sizes = ["--batch_size=8", "--inference=1", "--turns=2", "--seconds=0.1"]
    return [*given, *sizes, "--libraries=flax"]
  gpu = peer_variants.has_nvidia_gpu()
  return [
    *given,
    "--batch_size=256",
    "--inference=256",
    "--turns=5",
    "--libraries=pytorch",
    "--layouts=channels_last",
    f"--modes={'graph,eager,reduce-overhead' if gpu else 'eager'}",
  ]
