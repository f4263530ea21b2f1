"""Facial expression recognition in JAX and Flax, at full throughput.

Everything a notebook needs is here; each name is imported when it is first
used, so that `import fer_jax` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from fer_jax.api import (
    evaluate_model,
    explain_model,
    export_model,
    load_model,
  )
  from fer_jax.api import (
    load as load,  # the former name of `load_model`
  )
  from fer_jax.data.datasets.registry import available as list_datasets
  from fer_jax.data.datasets.registry import load as load_dataset
  from fer_jax.errors import Interrupted, UserError
  from fer_jax.faces.detection import create_detector
  from fer_jax.faces.face import Face
  from fer_jax.inference.prediction_stream import NamedImage
  from fer_jax.models.registry import create as create_model
  from fer_jax.models.registry import list_models
  from fer_jax.pretrained.released import list_released
  from fer_jax.recipes import get_config, list_configs
  from fer_jax.studies.run_study import run_study
  from fer_jax.sweeps.run_sweep import run_sweep
  from fer_jax.training.cross_validation import (
    cross_validate as run_cross_validation,
  )
  from fer_jax.training.runtime.startup import configure_process
  from fer_jax.training.train_loop import (
    train_and_evaluate,
  )

__version__ = "0.1.0"

# Public name, or a former one, -> "module:name".
_PUBLIC = {
  "Face": "fer_jax.faces.face:Face",
  "Interrupted": "fer_jax.errors:Interrupted",
  "NamedImage": "fer_jax.inference.prediction_stream:NamedImage",
  "UserError": "fer_jax.errors:UserError",
  "configure_process": "fer_jax.training.runtime.startup:configure_process",
  "create_detector": "fer_jax.faces.detection:create_detector",
  "create_model": "fer_jax.models.registry:create",
  "evaluate_model": "fer_jax.api:evaluate_model",
  "explain_model": "fer_jax.api:explain_model",
  "export_model": "fer_jax.api:export_model",
  "get_config": "fer_jax.recipes:get_config",
  "list_configs": "fer_jax.recipes:list_configs",
  "list_datasets": "fer_jax.data.datasets.registry:available",
  "list_models": "fer_jax.models.registry:list_models",
  "list_released": "fer_jax.pretrained.released:list_released",
  "load": "fer_jax.api:load",
  "load_dataset": "fer_jax.data.datasets.registry:load",
  "load_model": "fer_jax.api:load_model",
  "run_cross_validation": "fer_jax.training.cross_validation:cross_validate",
  "run_study": "fer_jax.studies.run_study:run_study",
  "run_sweep": "fer_jax.sweeps.run_sweep:run_sweep",
  "train_and_evaluate": "fer_jax.training.train_loop:train_and_evaluate",
}

__all__ = [
  "Face",
  "Interrupted",
  "NamedImage",
  "UserError",
  "__version__",
  "configure_process",
  "create_detector",
  "create_model",
  "evaluate_model",
  "explain_model",
  "export_model",
  "get_config",
  "list_configs",
  "list_datasets",
  "list_models",
  "list_released",
  "load_dataset",
  "load_model",
  "run_cross_validation",
  "run_study",
  "run_sweep",
  "train_and_evaluate",
]


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f"module 'fer_jax' has no attribute {name!r}")
  module, _, attribute = _PUBLIC[name].partition(":")
  return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
  return sorted(__all__)
