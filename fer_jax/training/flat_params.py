"""A tree of arrays as a few long vectors, for accelerators.

On a GPU the cost of a small array is the launch of a kernel, whatever its size.
An optimizer that works array by array launches one for each of the hundred
arrays of a network, and as many copies, since XLA wants the kernel of a
convolution in another order (OHWI) than Flax has it (HWIO). `Flat` holds all
arrays that the optimizer treats alike in one vector, kernels in OHWI order. It
is a tree of few leaves, so `optax` updates it in a few kernels, in place; the
step cuts it into the arrays of the network where it applies that.

Whatever leaves the training program (checkpoints, exports) is a tree again, in
the shapes of `nn.Conv`: `to_tree`.
"""

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from fer_jax.ops import dispatch

Tree = Any
T = TypeVar("T")
_TO_OHWI, _TO_HWIO = (3, 0, 1, 2), (1, 2, 3, 0)


class Leaf(NamedTuple):
  """An array of the tree: its path ("conv1/kernel") and its shape."""

  path: str
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)

  def to_vector(self, array: Any) -> Any:
    """Flattens the array; the kernel of a convolution in OHWI order."""
    if len(self.shape) == 4:
      array = array.transpose(_TO_OHWI)
    return array.reshape(-1)

  def from_vector(self, vector: Any) -> Any:
    """Undoes `to_vector`."""
    if len(self.shape) != 4:
      return vector.reshape(self.shape)
    shape = tuple(self.shape[axis] for axis in _TO_OHWI)
    return vector.reshape(shape).transpose(_TO_HWIO)


Groups = tuple[tuple[Leaf, ...], ...]


@jax.tree_util.register_pytree_with_keys_class
class Flat:
  """A tree of nested dictionaries as one vector per group of its arrays.

  A JAX tree whose leaves are the vectors, at the keys "0", "1", ...

  Attributes:
    groups: the arrays in each vector, in order.
    vectors: the vectors by key; of some groups only in a part of the tree.
  """

  def __init__(self, groups: Groups, vectors: dict[str, Any]):
    self.groups = groups
    self.vectors = vectors

  @classmethod
  def from_tree(
    cls, tree: Tree, group_of: Callable[[str, Any], Hashable]
  ) -> "Flat":
    """Packs a tree.

    Args:
      tree: nested dictionaries of arrays of one dtype, on the host or traced.
      group_of: maps a path and its array to the group it belongs to.
    """
    arrays = flatten_dict(tree, sep="/")
    groups: dict[Hashable, list[Leaf]] = {}
    for path, array in arrays.items():
      leaf = Leaf(path, tuple(array.shape))
      groups.setdefault(group_of(path, array), []).append(leaf)
    interned = _intern(tuple(map(tuple, groups.values())))
    return cls(interned, {}).pack(arrays)

  def pack(self, arrays: Mapping[str, Any]) -> "Flat":
    """Packs arrays by path, in the groups of this; absent groups are left out.

    A group of `optax.MaskedNode` stays one such node.
    """
    vectors = {}
    for key, leaves in self._items():
      members = [arrays[leaf.path] for leaf in leaves if leaf.path in arrays]
      if members and not hasattr(members[0], "shape"):
        vectors[key] = members[0]
      elif members:
        parts = [
          leaf.to_vector(array)
          for leaf, array in zip(leaves, members, strict=True)
        ]
        host = isinstance(parts[0], np.ndarray)
        vectors[key] = (np if host else jnp).concatenate(parts)
    return Flat(self.groups, vectors)

  def pack_tree(self, tree: Tree) -> "Flat":
    """Packs a tree of nested dictionaries, in the groups of this."""
    return self.pack(flatten_dict(tree, sep="/"))

  def to_tree(self, by_kernels: bool = False) -> Tree:
    """Returns the nested dictionaries of arrays.

    Args:
      by_kernels: whether slices are computed as `_fusible` says.
    """
    arrays = {}
    for key, leaves in self._items():
      if key not in self.vectors:
        continue
      vector, start = self.vectors[key], 0
      for leaf in leaves:
        if not hasattr(vector, "shape"):
          arrays[leaf.path] = vector
          continue
        part = vector[start : start + leaf.size]
        part = leaf.from_vector(_fusible(part) if by_kernels else part)
        host = isinstance(part, np.ndarray)
        arrays[leaf.path] = np.ascontiguousarray(part) if host else part
        start += leaf.size
    return unflatten_dict(arrays, sep="/")

  def by_group(self, by_path: Mapping[str, T]) -> dict[str, T]:
    """What a mapping by path says of each group, where it says something."""
    return {
      key: by_path[leaves[0].path]
      for key, leaves in self._items()
      if leaves[0].path in by_path
    }

  def map_groups(self, fn: Callable[[str, Leaf], T]) -> "Flat":
    """Maps each group by the path and shape of its first array."""
    firsts = {key: leaves[0] for key, leaves in self._items()}
    return Flat(
      self.groups,
      {key: fn(firsts[key].path, firsts[key]) for key in self.vectors},
    )

  def split(self, paths: frozenset[str]) -> tuple["Flat", "Flat"]:
    """Cuts into the groups whose arrays are not among `paths`, and the rest."""
    inside = self.by_group(dict.fromkeys(paths, True))
    held = {key: self.vectors[key] for key in self.vectors if key in inside}
    rest = {key: self.vectors[key] for key in self.vectors if key not in inside}
    return Flat(self.groups, rest), Flat(self.groups, held)

  def merge(self, other: "Flat") -> "Flat":
    """Undoes `split`."""
    return Flat(self.groups, self.vectors | other.vectors)

  def _items(self) -> Iterable[tuple[str, tuple[Leaf, ...]]]:
    return ((str(i), leaves) for i, leaves in enumerate(self.groups))

  def tree_flatten_with_keys(self) -> tuple[Any, Any]:
    """Returns the vectors with their keys, and what is static."""
    keys = tuple(sorted(self.vectors))
    children = [(jax.tree_util.DictKey(key), self.vectors[key]) for key in keys]
    return children, (_Static(self.groups), keys)

  @classmethod
  def tree_unflatten(cls, static: Any, vectors: Iterable[Any]) -> "Flat":
    """Undoes `tree_flatten_with_keys`."""
    held, keys = static
    return cls(held.groups, dict(zip(keys, vectors, strict=True)))


class _Static:
  """Groups compared by identity, which `_intern` makes the same as equality.

  JAX compares and hashes what is static at every call of a compiled function.
  """

  def __init__(self, groups: Groups):
    self.groups = groups

  def __eq__(self, other: object) -> bool:
    return isinstance(other, _Static) and self.groups is other.groups

  def __hash__(self) -> int:
    return id(self.groups)


@functools.cache
def _intern(groups: Groups) -> Groups:
  return groups


def to_tree(tree: Tree) -> Tree:
  """Unpacks every `Flat` in a tree; what holds none is returned as it is."""
  return jax.tree.map(
    lambda node: node.to_tree() if isinstance(node, Flat) else node,
    tree,
    is_leaf=lambda node: isinstance(node, Flat),
  )


def layer_params(params: Tree, dtype: str) -> Tree:
  """Returns parameters, packed or not, as the model takes them.

  Args:
    params: of a training state.
    dtype: of the model's compute, as in configurations.
  """
  if not isinstance(params, Flat):
    return params
  bare = dtype == "float32" and dispatch.platform() == "gpu"
  return params.to_tree(by_kernels=bare)


def _fusible(part: Array) -> Array:
  """Returns an array unchanged, by an operation that XLA can fuse on a GPU.

  Each slice that a library call reads is a kernel of its own, unless something
  is computed in it, such as a cast: then all slices of a size are one kernel.
  For float32 this operation, which XLA does not simplify, takes that place.
  """
  return jnp.where(part == part, part, jnp.nan)


def pack_as(template: Tree, tree: Tree) -> Tree:
  """Packs host arrays wherever a template is packed, in the same groups.

  Args:
    template: a tree in which some parts may be packed.
    tree: the same tree, unpacked.
  """
  return jax.tree.map(
    lambda like, part: like.pack_tree(part) if isinstance(like, Flat) else part,
    template,
    tree,
    is_leaf=lambda node: isinstance(node, Flat),
  )


def pack_like(flat: Flat, tree: Tree) -> Tree:
  """Packs every part of a tree that is shaped as `flat`'s tree or a part of it.

  Args:
    flat: parameters.
    tree: the state of an optimizer of the same parameters, unpacked.
  """
  paths = {leaf.path for leaves in flat.groups for leaf in leaves}

  def is_params(node: Any) -> bool:
    return (
      isinstance(node, dict)
      and bool(node)
      and flatten_dict(node, sep="/").keys() <= paths
    )

  return jax.tree.map(
    lambda node: flat.pack_tree(node) if is_params(node) else node,
    tree,
    is_leaf=is_params,
  )
