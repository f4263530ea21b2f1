"""Notes on results: what people conclude from them, beside their files.

Those on `NAME.jsonl` are in `NAME.notes.md`, a section "## PAPER" per paper.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fer_jax.errors import UserError, choose
from fer_jax.studies import paper_results
from fer_jax.studies.paper_results import Key, Result
from fer_jax.studies.papers import PAPERS

SUFFIX = ".notes.md"


def read(files: Iterable[Path], results: Sequence[Result]) -> dict[str, str]:
  """Returns the notes on each paper, Markdown by key of `PAPERS`.

  Notes are about the results of their file. So a paper's are left out if it has
  other results, too.

  Args:
    files: of results; they, and their notes, need not exist.
    results: all that are shown.

  Raises:
    UserError: a file cannot be read, or has a section of an unknown paper.
  """
  found: dict[str, str] = {}
  for file in files:
    notes = file.with_suffix(SUFFIX)
    if not notes.exists():
      continue
    own = paper_results.read([file], missing_ok=True)
    try:
      _, *sections = notes.read_text(encoding="utf-8").split("\n## ")
    except (OSError, ValueError) as e:
      raise UserError(f"cannot read {notes}: {e}") from e
    for section in sections:
      title, _, text = section.partition("\n")
      paper = choose(f"paper of {notes}", title.strip(), PAPERS)
      if _of_paper(own, paper) == _of_paper(results, paper):
        paragraphs = text.strip().split("\n\n")
        found[paper] = "\n\n".join(" ".join(p.split()) for p in paragraphs)
  return found


def _of_paper(results: Sequence[Result], paper: str) -> dict[Key, Result]:
  return {
    paper_results.key_of(result): result
    for result in results
    if result["paper"] == paper
  }
