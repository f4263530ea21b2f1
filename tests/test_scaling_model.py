"""The estimate of scaling reads the tables that are in the repository."""

import pytest
import scaling_model


def test_estimates_of_every_slice_and_model():
  rows = list(scaling_model.estimates())
  assert len(rows) == len(scaling_model.SLICES) * len(scaling_model.MODELS)
  for row in rows:
    assert 0 < row["efficiency"] < row["efficiency_one_sum"] < 1
    parts = row["step_ms"] + row["bytes_ms"] + row["latency_ms"]
    assert row["step_ms"] / parts == pytest.approx(row["efficiency"])
