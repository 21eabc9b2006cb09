"""Checks of arguments that many modules make."""

from __future__ import annotations

from collections.abc import Iterable


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raises a ValueError that lists what is known, unless ``value`` is among it."""
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; the known ones are {', '.join(known)}")
