"""Batches: every row in its place, the same from both feeds, resumable."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_releases import challenge_csv, make_faces

from fer_jax.data import load, pipeline
from fer_jax.data.records import RecordFiles
from fer_jax.errors import UserError

NUM_TRAIN, NUM_VALIDATION = 23, 10
BATCH_SIZE = 4
STEPS_PER_EPOCH = NUM_TRAIN // BATCH_SIZE


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp("fer2013")
  usages = ["Training"] * NUM_TRAIN + ["PublicTest"] * NUM_VALIDATION
  (folder / "fer2013.csv").write_bytes(challenge_csv(make_faces(*usages)))
  return load(
    "fer2013", manual_dir=str(folder), data_dir=str(folder / "prepared")
  )


@pytest.fixture(scope="module")
def train(dataset):
  return dataset.split("train")


@pytest.fixture(scope="module")
def validation(dataset):
  return dataset.split("validation")


def order_of(num_epochs=3, seed=5, **fields):
  return pipeline.BatchOrder(
    **{
      "num_rows": NUM_TRAIN,
      "batch_size": BATCH_SIZE,
      "num_epochs": num_epochs,
      "seed": seed,
      **fields,
    }
  )


def epoch_of(order, epoch):
  """All rows of an epoch, in the order of its batches."""
  first = epoch * order.steps_per_epoch
  return np.concatenate(
    [order[first + i] for i in range(order.steps_per_epoch)]
  )


def with_images(split, batch):
  """The batch as `stream` gives it, whatever the feed."""
  if "index" not in batch:
    return batch
  arrays, rest = split.arrays(), dict(batch)
  index = rest.pop("index")
  return {k: arrays[k][index] for k in ("image", "target")} | rest


def assert_same(got, wanted):
  got, wanted = list(got), list(wanted)
  assert len(got) == len(wanted)
  for a, b in zip(got, wanted, strict=True):
    assert a.keys() == b.keys()
    for key, value in a.items():
      assert value.dtype == b[key].dtype
      np.testing.assert_array_equal(value, b[key])


# The order of training batches.


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_no_row_twice_in_an_epoch(num_rows, batch_size, seed):
  batch_size = min(batch_size, num_rows)
  order = order_of(2, seed, num_rows=num_rows, batch_size=batch_size)
  assert order.steps_per_epoch == num_rows // batch_size
  assert len(order) == 2 * order.steps_per_epoch
  for epoch in range(2):
    rows = epoch_of(order, epoch)
    assert len(rows) == order.steps_per_epoch * batch_size
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(num_rows))
  if num_rows % batch_size == 0:
    assert sorted(epoch_of(order, 1)) == list(range(num_rows))


def test_the_remainder_left_out_is_another_in_every_epoch():
  order = order_of(num_epochs=20)
  assert (order.steps_per_epoch, len(order)) == (5, 100)
  left_out = [
    frozenset(range(NUM_TRAIN)) - set(epoch_of(order, epoch))
    for epoch in range(20)
  ]
  assert {len(rows) for rows in left_out} == {3}
  assert len(set(left_out)) > 10


def test_order_is_the_seeds_and_the_epochs():
  order = order_of()
  epochs = [epoch_of(order, epoch).tolist() for epoch in range(3)]
  assert len({tuple(rows) for rows in epochs}) == 3
  again, other = order_of(), order_of(seed=6)
  # Asked for backwards: what an epoch is does not depend on what came before.
  for epoch in (2, 1, 0):
    assert epoch_of(again, epoch).tolist() == epochs[epoch]
    assert epoch_of(other, epoch).tolist() != epochs[epoch]
  # A longer run begins as a shorter one does.
  assert epoch_of(order_of(num_epochs=9), 2).tolist() == epochs[2]


def test_rows_are_small_integers_that_cannot_be_written_to():
  rows = order_of()[0]
  assert rows.dtype == np.int32 and rows.shape == (BATCH_SIZE,)
  with pytest.raises(ValueError, match="read-only"):
    rows[0] = 0


def test_order_ends():
  order = order_of(num_epochs=2)
  assert len(list(order)) == len(order) == 10
  for batch in (10, -1):
    with pytest.raises(IndexError):
      order[batch]


def test_threads_get_the_same_order():
  order, wanted = order_of(num_epochs=40), order_of(num_epochs=40)
  got: dict[int, list[int]] = {}

  def ask(batches):
    for batch in batches:
      got[batch] = order[batch].tolist()

  threads = [
    threading.Thread(target=ask, args=(range(i, len(order), 4),))
    for i in range(4)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert got == {i: wanted[i].tolist() for i in range(len(wanted))}


@pytest.mark.parametrize("process_count", [2, 4])
def test_shares_of_processes_make_the_global_batch(process_count):
  whole = order_of()
  shares = [
    order_of(process_index=i, process_count=process_count)
    for i in range(process_count)
  ]
  for batch in range(len(whole)):
    parts = [share[batch] for share in shares]
    assert {len(part) for part in parts} == {BATCH_SIZE // process_count}
    assert np.concatenate(parts).tolist() == whole[batch].tolist()


def test_too_few_rows_name_the_batch_size_to_give():
  assert len(order_of(1, num_rows=4)) == 1
  with pytest.raises(UserError) as error:
    order_of(num_rows=3)
  assert str(error.value) == (
    "batch_size=4 must be at most 3, the examples of the training split"
  )


# Training batches.


def test_both_feeds_give_the_same_batches(train):
  resident, stream = (
    list(pipeline.training_batches(train, order_of(), feed))
    for feed in pipeline.DATA_LOADERS
  )
  assert [set(batch) for batch in resident] == [{"index"}] * 15
  assert [batch["index"].tolist() for batch in resident] == [
    rows.tolist() for rows in order_of()
  ]
  assert_same(stream, (with_images(train, batch) for batch in resident))
  assert stream[0]["image"].dtype == np.uint8
  assert stream[0]["image"].shape == (BATCH_SIZE, 48, 48, 1)
  assert stream[0]["target"].dtype == np.int32


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
@pytest.mark.parametrize("seen", [0, 2, STEPS_PER_EPOCH, 7, 14, 15])
def test_another_iterator_goes_on_from_a_state(train, feed, seen):
  wanted = list(pipeline.training_batches(train, order_of(), feed))
  first = pipeline.training_batches(train, order_of(), feed)
  for _ in range(seen):
    next(first)
  state = first.get_state()
  assert_same(first, wanted[seen:])  # To read a state changes nothing.
  second = pipeline.training_batches(train, order_of(), feed)
  second.set_state(state)
  assert second.get_state() == state
  assert_same(second, wanted[seen:])


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
def test_an_iterator_goes_back_and_forth(train, feed):
  wanted = list(pipeline.training_batches(train, order_of(), feed))
  iterator = pipeline.training_batches(train, order_of(), feed)
  states = []
  for batch in wanted:
    states.append(iterator.get_state())
    assert_same([next(iterator)], [batch])
  # What was read ahead, or after the end, is not given again.
  for batch in (3, 12, 0, 14, 5, 4):
    iterator.set_state(states[batch])
    assert_same([next(iterator)], [wanted[batch]])
  assert_same(iterator, wanted[5:])


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
def test_several_batches_are_those_that_come_next(train, feed):
  order = order_of()
  wanted = list(pipeline.training_batches(train, order, feed))
  iterator = pipeline.training_batches(train, order, feed)
  start = 0
  for count in (2, 1, 4, 3):  # over the end of an epoch
    stacked = pipeline.take(iterator, order, feed, count)
    expected = wanted[start : start + count]
    for name, values in stacked.items():
      np.testing.assert_array_equal(values, [b[name] for b in expected])
    start += count
  assert_same(iterator, wanted[start:])


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
def test_a_run_goes_on_with_the_other_feed(train, feed):
  (other,) = set(pipeline.DATA_LOADERS) - {feed}
  iterator = pipeline.training_batches(train, order_of(), feed)
  for _ in range(7):
    next(iterator)
  second = pipeline.training_batches(train, order_of(), other)
  second.set_state(iterator.get_state())
  assert_same(
    (with_images(train, batch) for batch in second),
    (with_images(train, batch) for batch in iterator),
  )


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
def test_processes_share_training_batches(train, feed):
  shares = [
    pipeline.training_batches(
      train, order_of(process_index=i, process_count=2), feed
    )
    for i in range(2)
  ]
  joined = (
    {key: np.concatenate([a[key], b[key]]) for key in a}
    for a, b in zip(*shares, strict=True)
  )
  assert_same(joined, pipeline.training_batches(train, order_of(), feed))


# Evaluation batches.


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 16])
def test_evaluation_sees_every_row_once_in_order(validation, feed, batch_size):
  batches = list(pipeline.evaluation_batches(validation, batch_size, feed))
  assert len(batches) == -(-NUM_VALIDATION // batch_size)
  for batch in batches:
    assert all(len(value) == batch_size for value in batch.values())
  masks = [batch["mask"] for batch in batches]
  assert all(mask.dtype == bool for mask in masks)
  assert all(mask.all() for mask in masks[:-1])
  arrays = validation.arrays()
  full = [with_images(validation, batch) for batch in batches]
  for key in ("image", "target"):
    seen = [batch[key][batch["mask"]] for batch in full]
    np.testing.assert_array_equal(np.concatenate(seen), arrays[key])
    padding = full[-1][key][~masks[-1]]
    np.testing.assert_array_equal(
      padding, np.broadcast_to(arrays[key][:1], padding.shape)
    )


@pytest.mark.parametrize("batch_size", [4, 10, 16])
def test_feeds_evaluate_the_same(validation, batch_size):
  resident, stream = (
    list(pipeline.evaluation_batches(validation, batch_size, feed))
    for feed in pipeline.DATA_LOADERS
  )
  assert {frozenset(batch) for batch in resident} == {
    frozenset(("index", "mask"))
  }
  assert {batch["index"].dtype for batch in resident} == {np.dtype(np.int32)}
  assert_same(stream, (with_images(validation, batch) for batch in resident))


@pytest.mark.parametrize("feed", pipeline.DATA_LOADERS)
@pytest.mark.parametrize("batch_size", [4, 10, 16])
def test_processes_share_evaluation_batches(validation, feed, batch_size):
  shares = [
    list(pipeline.evaluation_batches(validation, batch_size, feed, i, 2))
    for i in range(2)
  ]
  joined = (
    {key: np.concatenate([a[key], b[key]]) for key in a}
    for a, b in zip(*shares, strict=True)
  )
  assert_same(joined, pipeline.evaluation_batches(validation, batch_size, feed))


# What users may type.


@pytest.mark.parametrize("feed", ["", "streams"])
def test_unknown_feed_lists_both(train, feed):
  for make in (
    lambda: pipeline.training_batches(train, order_of(), feed),
    lambda: list(pipeline.evaluation_batches(train, 4, feed)),
  ):
    with pytest.raises(UserError, match=f"data_loader '{feed}'.*in_memory, s"):
      make()


def test_batch_that_does_not_divide_over_processes_is_refused(train):
  for make in (
    lambda: order_of(process_index=0, process_count=3),
    lambda: list(pipeline.evaluation_batches(train, 4, "in_memory", 0, 3)),
  ):
    with pytest.raises(
      UserError, match="batch_size=4 must be a multiple of 3 processes"
    ):
      make()


def test_a_process_reads_its_share_a_few_batches_ahead(train, monkeypatch):
  read: list[int] = []
  real = RecordFiles.read

  def counted(self, indices):
    read.extend(map(int, indices))
    return real(self, indices)

  order = order_of(num_epochs=50, process_index=1, process_count=2)
  batches = pipeline.training_batches(train, order, "streaming")
  monkeypatch.setattr(RecordFiles, "read", counted)
  next(batches)
  time.sleep(0.2)  # Threads read ahead as far as they are going to.
  share = np.concatenate([order[i] for i in range(8 + 2)])
  assert BATCH_SIZE // 2 <= len(read) <= len(share)
  assert sorted(read) == sorted(map(int, share[: len(read)]))
