"""A method's settings as its file declares them, read without running it: a misspelt one is refused before PyTorch is imported.

The file is parsed, the class `Settings` and the classes that it extends are looked up in it and in the files it imports them from, and
their annotated fields are the settings.  Values are checked by the class itself, later.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

TYPES: dict[str, Any] = {kind.__name__: kind for kind in (bool, int, float, str, tuple, list, dict)} | {"Literal": Literal}
"""What annotations of settings are made of."""


def declared_settings(module: str) -> dict[str, Any] | None:
    """Name -> type of the settings of a method's module, those of base classes first; a type that is not made of `TYPES` is Any.

    None where the file cannot tell: a class that is built otherwise, or no Python file.
    """
    return _fields(module, "Settings")


def _fields(module: str, name: str) -> dict[str, Any] | None:
    """The annotated fields of a dataclass by its module and name, or None."""
    tree = _tree(module)
    if tree is None:
        return None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _fields(node.module, alias.name)
        if isinstance(node, ast.ClassDef) and node.name == name:
            found: dict[str, Any] = {}
            for base in node.bases:
                inherited = _fields(module, base.id) if isinstance(base, ast.Name) else None
                if inherited is None:
                    return None
                found |= inherited
            own = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
            return found | {each.target.id: _type(each.annotation) for each in own if isinstance(each.target, ast.Name)}
    return None


@cache
def _tree(module: str) -> ast.Module | None:
    """The parsed file of a module; the packages around it are imported, itself it is not."""
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None) if loaded is not None else getattr(find_spec(module), "origin", None)
    if origin is None or not origin.endswith(".py"):
        return None
    return ast.parse(Path(origin).read_text(encoding="utf-8"))


def _type(annotation: ast.expr) -> Any:
    """The type that an annotation spells, or Any."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    if not names <= TYPES.keys():
        return Any
    return eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}}, dict(TYPES))
