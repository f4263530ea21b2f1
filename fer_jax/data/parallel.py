"""Threads that work ahead, with results in order and bounded memory."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_in_order(
  fn: Callable[[In], Out], items: Iterable[In], num_workers: int = 0
) -> Generator[Out, None, None]:
  """Yields `fn` of each item, computed by threads, in the items' order.

  No more than two results per thread are computed ahead of what is taken.
  Decoding, resizing and ONNX Runtime release Python's lock, so threads use
  several cores.

  Args:
    fn: called in any thread; what it raises is raised here, in order.
    items: taken one by one, in the calling thread.
    num_workers: threads; 0 is one per core of this process.

  >>> list(map_in_order(lambda x: x * x, range(5)))
  [0, 1, 4, 9, 16]
  """
  # A generator may end with the process, when globals are None already.
  is_finalizing = sys.is_finalizing
  num_workers = num_workers or num_cores()
  pending: deque[Future[Out]] = deque()
  pool = ThreadPoolExecutor(num_workers)
  try:
    for item in items:
      pending.append(pool.submit(fn, item))
      if len(pending) > 2 * num_workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    if not is_finalizing():  # Its threads have ended by then.
      pool.shutdown(wait=True, cancel_futures=True)


def num_cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
