"""The former place of `python -m fer_jax.convert`, which it runs."""

if __name__ == "__main__":
  from fer_jax.convert import COMMAND

  COMMAND.run()
