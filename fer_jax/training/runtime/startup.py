"""Start-up of a process that computes: what must be set before JAX starts."""

import logging as python_logging

from absl import logging
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.training.runtime import compilation_cache as cache
from fer_jax.training.runtime import cpu, xla_flags


def configure_process(config: ConfigDict | None = None) -> None:
  """Configures this process for training, as the command `train` does.

  To be called in programs and notebooks before JAX computes anything. It keeps
  compiled programs in a cache, hides what libraries log below warnings, and
  lets malloc keep memory from step to step. Without it training works, but
  compiles again in every process, and `compilation_cache`, `cuda_graphs` and
  `deterministic` of a configuration have no effect.

  Args:
    config: the configuration with these three fields; None is their defaults.

  Example:
    fer_jax.configure_process()
  """
  if config is None:
    start()
  else:
    configs.require_config(config)
    start(config.compilation_cache, config.cuda_graphs, config.deterministic)


def start(
  compilation_cache: str = "",
  graphs: str = "auto",
  deterministic: bool = False,
) -> None:
  """Configures logging, malloc, the cache of compiled programs, XLA's flags.

  To be called before JAX starts its threads.

  Args:
    compilation_cache: the folder, as in configurations: "" is the user's cache
      folder, "off" keeps no programs.
    graphs: `cuda_graphs`, as in configurations.
    deterministic: as in configurations.
  """
  quiet_libraries()
  xla_flags.configure_cuda_graphs(graphs)
  if deterministic:
    xla_flags.request_determinism()
  cpu.configure_malloc()
  cache.use_cache(compilation_cache)


def quiet_libraries() -> None:
  """Hides what libraries log below warnings."""
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().addFilter(_is_relevant)


def _is_relevant(record: python_logging.LogRecord) -> bool:
  """Hides orbax's notes on how it saves; what fails, it raises."""
  return "orbax" not in record.pathname
