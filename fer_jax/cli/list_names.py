"""Lists models, datasets and recipes, with their options, and released models.

fer-jax list [models|datasets|recipes|released]
"""

from collections.abc import Sequence

from fer_jax.cli import app
from fer_jax.errors import choose

KINDS = ("models", "datasets", "recipes", "released")


def main(argv: Sequence[str]) -> None:
  """Lists what the arguments name."""
  kinds = [choose("list", name, KINDS) for name in argv[1:]] or KINDS
  for i, kind in enumerate(kinds):
    if len(kinds) > 1:
      print(f"{'' if i == 0 else chr(10)}{kind}")
    for name, options in _names(kind).items():
      print(f"  {name:<22}{', '.join(options)}".rstrip())


def _names(kind: str) -> dict[str, list[str]]:
  """Returns names, and what each takes: options, or nothing."""
  if kind == "recipes":
    from fer_jax import recipes

    return {name: [recipes.summary(name)] for name in recipes.list_configs()}
  if kind == "models":
    from fer_jax.models import registry as models

    return {name: [*models.options_of(name)] for name in models.list_models()}
  if kind == "released":
    from fer_jax.pretrained import released

    default = released.default_name()
    names = released.list_released()
    return {name: ["the default"] * (name == default) for name in names}
  from fer_jax.data.datasets import registry

  return {
    name: sorted(registry.default_options(name))
    for name in registry.available()
  }


COMMAND = app.Command("list", __doc__, lambda: None, main, takes_arguments=True)

if __name__ == "__main__":
  COMMAND.run()
