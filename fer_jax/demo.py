r"""Serves a web page to try a trained model.

fer-jax demo [--workdir=W] [--host=127.0.0.1] [--port=8000] [--checkpoint=best]

Drop a picture on the page, choose one, or use the webcam. Needs the optional
extra `demo`, and to find faces `faces`. Nothing is stored; Ctrl-C ends it.
"""

import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags

from fer_jax.cli import app, model_flags
from fer_jax.errors import UserError


def define_flags() -> None:
  """Defines the command's flags."""
  model_flags.define_workdir()
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to serve at; 0.0.0.0 is every address."
  )
  flags.DEFINE_integer(
    "port", 8000, "Port; 0 is any free one.", lower_bound=0, upper_bound=65535
  )


def main(argv: Sequence[str]) -> None:
  """Serves as the flags say."""
  del argv
  given = flags.FLAGS
  model_flags.start()
  web_app, server = load_serving()
  from fer_jax.serving.image_api import ImageApi

  with server.listen(given.host, given.port) as listener:
    loopback = server.is_loopback(listener)
    if not loopback:
      print(
        f"warning: --host={given.host} lets everybody who reaches this machine"
        " use the model, unencrypted and without a password",
        file=sys.stderr,
      )
    image_api = ImageApi.load(given.workdir, given.checkpoint)
    print("compiling ...", flush=True)
    image_api.warm_up()
    if not image_api.finds_faces:
      print(
        "faces cannot be found, so each picture is taken as one face: pip"
        " install 'fer_jax[faces]'"
      )
    print(f"open {server.url(given.host, listener)} (Ctrl-C ends)", flush=True)
    names = server.names(given.host, loopback)
    server.serve(web_app.make_app(image_api, names), listener)


def load_serving() -> tuple[ModuleType, ModuleType]:
  """Imports `fer_jax.serving.app` and `server`.

  Raises:
    UserError: the extra `demo` is not installed.
  """
  try:
    from fer_jax.serving import app as web_app
    from fer_jax.serving import server
  except ModuleNotFoundError as e:
    raise UserError(
      f"the demo needs the package {e.name}: pip install 'fer_jax[demo]'"
    ) from e
  return web_app, server


COMMAND = app.Command("demo", __doc__, define_flags, main, handles_signals=True)

if __name__ == "__main__":
  COMMAND.run()
