"""The former place of `python -m fer_jax.align`, which it runs."""

if __name__ == "__main__":
  from fer_jax.align import COMMAND

  COMMAND.run()
