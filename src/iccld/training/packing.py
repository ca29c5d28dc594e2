"""Nested training state <-> JSON plus named tensors, so that no checkpoint ever needs a pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

MARK = "$"
"""First character of the keys that stand for something JSON cannot say."""


def pack(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Return `value` as JSON types and put its tensors into `tensors`, each under its path in the tree.

    Takes None, bool, int, float, str, Tensor, and lists, tuples and mappings of them; anything else is a TypeError with its path.
    """
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {MARK + "tensor": path}
    if isinstance(value, float) and not math.isfinite(value):
        return {MARK + "float": repr(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [pack(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {MARK + "tuple": [pack(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith(MARK) for key in value):
            return {key: pack(item, tensors, f"{path}/{key}") for key, item in value.items()}
        pairs = [[pack(key, tensors), pack(item, tensors, f"{path}/{key}")] for key, item in value.items()]
        return {MARK + "dict": pairs}
    raise TypeError(f"training state {path or '/'} is a {type(value).__name__}; tensors, numbers, strings and containers can be saved")


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`; a tensor that is missing is a KeyError with its path."""
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        ((key, item),) = tree.items()
        if key == MARK + "tensor":
            return tensors[item]
        if key == MARK + "float":
            return float(item)
        if key == MARK + "tuple":
            return tuple(unpack(part, tensors) for part in item)
        if key == MARK + "dict":
            return {unpack(name, tensors): unpack(part, tensors) for name, part in item}
    return {key: unpack(item, tensors) for key, item in tree.items()}
