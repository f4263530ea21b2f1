"""The curves of studies and papers."""

import numpy as np
import pytest

from fer_jax.studies import study_plots


def run(validation):
  """The curves of a run whose training loss falls from 2."""
  losses = np.linspace(2.0, 0.1, len(validation)).tolist()
  return {"train_loss": losses, "validation_loss": validation}


@pytest.mark.parametrize("peak", [6.0, 50.0])
def test_early_peaks_are_cut_off_and_named(peak):
  figure = study_plots.curves({"one": [run([peak] + [1.5] * 9)]}, "loss")
  validation = figure.axes[1]
  assert validation.get_ylim()[1] == pytest.approx(1.3 * 2)
  assert [text.get_text() for text in validation.texts] == [f"{peak:.1f}"]


def test_points_lie_at_the_epochs_that_were_evaluated():
  one, other = run([1.0, 2.0, 3.0]), run([2.0, 3.0])
  one["epoch"], other["epoch"] = [5, 10, 12], [5, 10]
  figure = study_plots.curves(
    {"one": [one, other], "old": [run([1.0])]}, "loss"
  )
  new, old = figure.axes[1].lines
  expected = [[5, 1.5], [10, 2.5], [12, 3.0]]
  np.testing.assert_array_equal(new.get_xydata(), expected)
  np.testing.assert_array_equal(old.get_xydata(), [[1, 1.0]])


def test_overfitting_is_drawn():
  rising = np.linspace(1.5, 4.0, 20).tolist()
  figure = study_plots.curves({"one": [run(rising)]}, "loss")
  validation = figure.axes[1]
  assert validation.get_ylim()[1] > 4.0 and not validation.texts


def test_no_two_of_many_lines_look_equal():
  runs = {str(i): [run([2.0, 1.0])] for i in range(15)}
  lines = study_plots.curves(runs, "loss").axes[0].lines
  looks = {(line.get_color(), str(line.get_linestyle())) for line in lines}
  assert len(looks) == 15
