"""Names: what ours stand for, and what of one's own an import path does."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from .arguments import one_of

T = TypeVar("T")


def find(
    what: str, name: str, known: Mapping[str, T], fits: Callable[[object], bool], kind: str
) -> T:
    """Finds what ``name`` stands for: one of ``known``, or, with a dot, an import path.

    Args:
        what: it is, for errors.
        name: a known one, or an import path such as ``"my_module.MyClass"``.
        known: by name.
        fits: whether what was imported is of the kind.
        kind: what an import path must name, for errors.

    Raises:
        ValueError: an unknown name (the error lists the known ones), or a path to nothing, or to
            something else.
    """
    if "." not in name:
        one_of(what, name, known)
        return known[name]
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} must read module.Name, the import path of a {what}")
    module, _, attribute = name.rpartition(".")
    try:
        found: T = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no {what} {name!r}: {error}") from error
    if not fits(found):
        raise ValueError(f"{name!r} is no {kind}")
    return found
