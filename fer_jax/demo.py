r"""Serves a web page to try a trained model.

python -m fer_jax.demo [--workdir=W] \
  [--host=127.0.0.1] [--port=8000] [--checkpoint=best]

Drop a picture on it, choose one, or use the webcam. Needs the optional extra
`demo`, and to find faces `faces`. Nothing is stored; Ctrl-C ends it.
"""

import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.inference.trained_model import CHECKPOINTS
from fer_jax.serving.image_api import Answerer


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
    "workdir", None, "A run, or a released model; a released one if not given."
  )
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_string(
    "host", "127.0.0.1", "The address to serve at; 0.0.0.0 is all there are."
  )
  flags.DEFINE_integer(
    "port", 8000, "0 is any that is free.", lower_bound=0, upper_bound=65535
  )


def main(argv: Sequence[str]) -> None:
  """Serves as the flags say."""
  del argv
  given = flags.FLAGS
  command.start()
  app, server = load_serving()
  with server.listen(given.host, given.port) as listener:
    loopback = server.is_loopback(listener)
    if not loopback:
      print(
        f"warning: --host={given.host} lets everybody who reaches this machine"
        " use the model, unencrypted and without a password",
        file=sys.stderr,
      )
    answerer = Answerer.load(given.workdir, given.checkpoint)
    print("compiling ...", flush=True)
    answerer.warm_up()
    if not answerer.finds_faces:
      print(
        "faces cannot be found, whole pictures are taken as one: pip install"
        " -e '.[faces]'"
      )
    print(f"open {server.url(given.host, listener)} (Ctrl-C ends)", flush=True)
    names = server.names(given.host, loopback)
    server.serve(app.make_app(answerer, names), listener)


def load_serving() -> tuple[ModuleType, ModuleType]:
  """Imports `fer_jax.serving.app` and `server`.

  Raises:
    UserError: the extra `demo` is not installed.
  """
  try:
    from fer_jax.serving import app, server
  except ModuleNotFoundError as e:
    raise errors.UserError(
      f"the demo needs the package {e.name}: pip install -e '.[demo]'"
    ) from e
  return app, server


if __name__ == "__main__":
  define_flags()
  errors.run(main)
