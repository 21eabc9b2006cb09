"""YAML from files and command lines, of bearable size."""

from __future__ import annotations

from typing import Any

import yaml

_MOST_CHARACTERS, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 50


def check_yaml(text: str) -> None:
    """Refuses YAML that is deep, or large once its aliases are written out.

    Raises:
        yaml.YAMLError: it is either, or no YAML.
    """
    if len(text) > _MOST_CHARACTERS:
        raise yaml.YAMLError(f"more than {_MOST_CHARACTERS} characters of YAML")
    sizes: dict[str, int] = {}  # of what has an anchor
    open_: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias *{event.anchor} stands within what it names")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        if total > _MOST_VALUES or len(open_) > _DEEPEST:
            raise yaml.YAMLError(
                f"more than {_MOST_VALUES} values, aliases written out, or deeper than {_DEEPEST}"
            )


def guard_jsonargparse() -> None:
    """Has jsonargparse check YAML before it reads it."""
    from jsonargparse import get_loader, set_loader

    load = get_loader("yaml")

    def loader(text: str) -> Any:
        check_yaml(text)
        return load(text)

    if not getattr(load, "_checks", False):
        loader._checks = True  # type: ignore[attr-defined]
        set_loader("yaml", loader, (yaml.YAMLError,))


def load_yaml(text: str) -> Any:
    """The values of YAML; a number such as 1e-3, which YAML 1.1 takes for a string, is one.

    Raises:
        yaml.YAMLError: it is no YAML, or too large.
    """
    check_yaml(text)
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
