"""The words of the project are the field's, as its style guide lists them."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# What is clean; other files join when they have been rewritten.
CLEAN = [
  "README.md",
  "fer_jax/*.py",
  "fer_jax/cli/**/*.py",
  "fer_jax/data/**/*.py",
  "fer_jax/evaluation/**/*.py",
  "fer_jax/faces/**/*.py",
  "fer_jax/inference/**/*.py",
  "fer_jax/models/**/*.py",
  "fer_jax/ops/**/*.py",
  "fer_jax/pretrained/**/*.py",
  "fer_jax/serving/**/*",
  "fer_jax/studies/**/*.py",
  "fer_jax/sweeps/**/*.py",
  "fer_jax/training/**/*.py",
  "configs/**/*.py",
  "benchmarks/*.py",
  "notebooks/*.ipynb",
  "docs/**/*.md",
  "examples/**/*",
]
# Pattern -> what to write instead.
WORDS = {
  r"gone on with|goes on from|go on from there": "resumed, resumes from",
  r"\bis no number\b": "non-finite (NaN or Inf)",
  r"\bby heart\b": "overfit a small subset",
  r"\bturn by turn\b|\bin turns\b": "interleaved",
  r"\bdata sets?\b": "dataset",
  r"\bthaw(s|ed|ing)?\b": "unfreeze",
  r"what is taken for what": "confusion matrix",
  r"\bby commas\b": "comma-separated",
  r"\b(one|images?|line|faces?|number|batches) a "
  r"(class|second|face|side|seed|fold|block|channel|day|row)\b": "per",
  r"\bafresh\b|\banew\b": "again, reinitialized",
  r"\bmend(s|ed|ing)?\b": "fix",
  r"\blet(s|ting)? go of\b": "block until freed",
  r"\blikewise\b": "a full phrase",
  r"has none of it": "not installed, not available",
  r"is not called so": "invalid",
  r"\b(grey|greys|colour|colours|normalis\w+|optimis\w+|behaviour)\b": (
    "US spelling"
  ),
  r"\bby and by\b|\bwhereof\b|\bhold them against\b": "plain English",
}


def files(patterns: list[str]) -> list[pathlib.Path]:
  """Returns the text files that match."""
  return sorted(
    path
    for pattern in patterns
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".md", ".ipynb", ".html", ".js", ".jinja")
  )


def complaints(text: str) -> list[str]:
  """Returns what is to be written in other words."""
  return [
    f"line {text[: match.start()].count(chr(10)) + 1}: {match[0]!r}: write"
    f" {instead}"
    for pattern, instead in WORDS.items()
    for match in re.finditer(pattern, text, re.IGNORECASE)
  ]


@pytest.mark.parametrize("path", files(CLEAN), ids=str)
def test_words_are_the_fields(path):
  assert not complaints(path.read_text(encoding="utf-8"))


def test_the_list_finds_what_it_is_for():
  text = "a loss that is no number;\nthe data set is gone on with afresh"
  assert len(complaints(text)) == 4
  assert complaints("one a class")[0].startswith("line 1: 'one a class'")
  assert not complaints(
    "The dataset has one example per class; resume from it."
  )
