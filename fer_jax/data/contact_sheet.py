"""The former place of `python -m fer_jax.contact_sheet`, which it runs."""

if __name__ == "__main__":
  from fer_jax.contact_sheet import COMMAND

  COMMAND.run()
