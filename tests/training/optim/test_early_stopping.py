"""Best epoch and patience, by hand and against a slow definition."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_jax.errors import UserError
from fer_jax.training.optim.early_stopping import EarlyStopping

_VALUES = st.lists(
  st.one_of(
    st.integers(0, 8).map(lambda i: i / 8),  # ties and exact differences
    st.sampled_from([math.nan, math.inf]),
  ),
  max_size=20,
)


def _run(stopping, values, start=0):
  outcome = []
  for epoch, value in enumerate(values, start):
    improved = stopping.update(epoch, value)
    outcome.append((improved, stopping.best_epoch, stopping.should_stop))
  return outcome


def test_loss_sequence():
  stopping = EarlyStopping("validation_loss", patience=2, min_delta=0.25)
  outcome = _run(stopping, [1.0, 1.5, 0.5, 0.375, 0.25, 0.125, 0.25, 0.125])
  assert outcome == [
    (True, 0, False),
    (False, 0, False),  # bad 1
    (True, 2, False),
    (True, 3, False),  # the best, but not by enough: bad 1
    (True, 4, True),  # by 0.25, not by more: bad 2
    (True, 5, False),  # by more than 0.25 under 0.5, in small steps
    (False, 5, False),
    (False, 5, True),
  ]
  assert stopping.best == 0.125


def test_accuracy_is_best_when_highest():
  stopping = EarlyStopping("validation_accuracy", patience=1)
  outcome = _run(stopping, [0.25, 0.5, 0.5])
  assert outcome == [(True, 0, False), (True, 1, False), (False, 1, True)]
  assert stopping.best == 0.5


@pytest.mark.parametrize("metric", ["validation_loss", "validation_accuracy"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_never_better(metric, value):
  stopping = EarlyStopping(metric, patience=2)
  assert not stopping.update(0, value)
  assert stopping.best is None and stopping.best_epoch is None
  assert stopping.update(1, 0.5)
  assert not stopping.update(2, value)
  assert stopping.best == 0.5
  assert not stopping.should_stop
  assert not stopping.update(3, value)
  assert stopping.should_stop


def test_no_patience_never_stops():
  stopping = EarlyStopping("validation_loss", patience=0)
  assert not any(stop for *_, stop in _run(stopping, [1.0] * 50))


@given(_VALUES, st.integers(1, 4), st.sampled_from([0.0, 0.125, 0.25]))
def test_follows_its_definition(values, patience, min_delta):
  stopping = EarlyStopping("validation_loss", patience, min_delta)
  marks = [math.inf]  # each beats the one before by more than min_delta
  bad = 0
  for epoch, value in enumerate(values):
    finite = [v for v in values[:epoch] if math.isfinite(v)]
    best_before = min(finite, default=math.inf)
    improved = stopping.update(epoch, value)
    assert improved == (math.isfinite(value) and value < best_before)
    if math.isfinite(value) and value < marks[-1] - min_delta:
      marks.append(value)
      bad = 0
    else:
      bad += 1
    assert stopping.should_stop == (bad >= patience)
  finite = [v for v in values if math.isfinite(v)]
  assert stopping.best == min(finite, default=None)
  if finite:
    assert stopping.best_epoch == values.index(min(finite))


@given(_VALUES, st.integers(0, 20))
def test_resumes_exactly(values, cut):
  expected = _run(EarlyStopping("validation_accuracy", 3, 0.125), values)
  first = EarlyStopping("validation_accuracy", 3, 0.125)
  outcome = _run(first, values[:cut])
  second = EarlyStopping("validation_accuracy", 3, 0.125)
  second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
  assert second.state() == first.state()
  assert outcome + _run(second, values[cut:], len(values[:cut])) == expected


def test_the_state_keeps_small_gains_that_have_yet_to_add_up():
  first = EarlyStopping("validation_loss", patience=2, min_delta=0.25)
  _run(first, [1.0, 0.875])  # the best is 0.875, to beat is 1.0 - 0.25
  second = EarlyStopping("validation_loss", patience=2, min_delta=0.25)
  second.restore(first.state())
  assert _run(second, [0.6875], 2) == [(True, 2, False)]


@pytest.mark.parametrize(
  ("arguments", "field"),
  [
    (("test_accuracy",), "best_metric"),
    (("validation_loss", -1), "early_stopping.patience"),
    (("validation_loss", 1, -0.1), "early_stopping.min_delta"),
    (("validation_loss", 1, math.nan), "early_stopping.min_delta"),
  ],
)
def test_bad_arguments_are_named_as_typed(arguments, field):
  with pytest.raises(UserError, match=field):
    EarlyStopping(*arguments)
