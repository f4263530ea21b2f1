"""Runs the command `fer-jax`, as `python -m fer_jax`."""

from fer_jax.cli.main import main

if __name__ == "__main__":
  main()
