"""The former place of `python -m fer_jax.audit`, which it runs."""

if __name__ == "__main__":
  from fer_jax.audit import COMMAND

  COMMAND.run()
