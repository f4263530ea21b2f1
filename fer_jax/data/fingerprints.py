"""Hashes of examples and of splits, which tell data apart by their contents."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np


def example_digest(image: np.ndarray, target: Any) -> bytes:
  """Returns a hash of one example's image and target."""
  digest = hashlib.blake2b(image.tobytes(), digest_size=16)
  target = np.asarray(target)
  soft = np.issubdtype(target.dtype, np.floating)
  digest.update(target.astype("<f4" if soft else "<i4").tobytes())
  return digest.digest()


def fingerprint_of(digests: Iterable[bytes]) -> str:
  """Returns the hash of a split from those of its examples, in order."""
  digest = hashlib.blake2b(digest_size=16)
  for example in digests:
    digest.update(example)
  return digest.hexdigest()
