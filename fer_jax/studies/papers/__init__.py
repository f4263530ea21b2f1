"""The runs, tables and figures of the five papers, and of our recipes."""

from fer_jax.studies.papers import (
  chang,
  jiang,
  lewis,
  own_recipes,
  pan,
  sutton,
)
from fer_jax.studies.papers.definitions import Curves, Paper, Row, Table

__all__ = ["PAPERS", "Curves", "Paper", "Row", "Table"]

PAPERS: dict[str, Paper] = {
  "pan": pan.PAPER,
  "sutton": sutton.PAPER,
  "jiang": jiang.PAPER,
  "lewis": lewis.PAPER,
  "chang": chang.PAPER,
  "recipes": own_recipes.PAPER,
}
