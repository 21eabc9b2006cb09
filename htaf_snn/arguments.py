"""Checks of arguments that many modules make: what comes from outside is checked by its type."""

import contextlib
import difflib
import importlib
import inspect
import math
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, Union

T = TypeVar("T")

# Of a value that an error quotes: hostile ones are deep, long, or both.
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 3, 100, 100


def quoted(value: object) -> str:
    """``value`` as an error shows it, in a line of bearable length."""
    return _short.repr(value)


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raises a ValueError that lists what is known, and what is nearest, unless it is ``value``."""
    known = list(known)
    if value not in known:
        raise ValueError(f"unknown {name} {quoted(value)}{nearest(value, known)}")


def nearest(value: object, known: Sequence[str]) -> str:
    """The end of an error about an unknown word: the known ones, and what it may have meant."""
    close = difflib.get_close_matches(str(value)[:100], known, 1)
    meant = f". Did you mean {close[0]}?" if close else ""
    return f"; the known ones are {', '.join(known) or 'none'}{meant}"


def by_name_or_path(
    what: str, name: str, known: Mapping[str, T], fits: Callable[[object], bool], kind: str
) -> T:
    """Finds what ``name`` stands for: one of ``known``, or an import path, ``my_module.MyClass``.

    Errors say ``what`` it is, and that what an import path names must be a ``kind``, by ``fits``.

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


def in_range(
    name: str,
    value: float,
    least: float,
    most: float = math.inf,
    *,
    open_: bool = False,
    below: bool = False,
) -> None:
    """Raises a ValueError unless ``value`` is a finite number from ``least`` to ``most``.

    ``open_`` refuses ``least`` itself, ``below`` refuses ``most`` itself.
    """
    starts = value > least or (value == least and not open_)
    ends = value < most or (value == most and not below)
    if math.isfinite(value) and starts and ends:
        return
    must = f"be {'above' if open_ else 'at least'} {least:g}"
    if below:
        must = f"lie in {'(' if open_ else '['}{least:g}, {most:g})"
    elif math.inf > value > most:
        must = f"be at most {most:g}"
    elif most < math.inf:
        must += f" and at most {most:g}"
    raise ValueError(f"`{name}` (={value}) must {must}")


def typed(name: str, value: object, hint: Any) -> Any:
    """``value`` as the type ``hint``, if it is of that type or a plain form of it.

    A list stands for a tuple, an integer for a float, a string for a path. Nothing is built by
    name: the types are None, bool, int, finite float, str, Path, Literal, `Options`, and lists,
    tuples, dicts and unions of them.

    Raises:
        ValueError: it is not; the message quotes both.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for one in arguments:
            with contextlib.suppress(ValueError):
                return typed(name, value, one)
    elif origin is Literal:
        if type(value) in {type(one) for one in arguments} and value in arguments:
            return value
        if isinstance(value, str):
            one_of(name, value, map(str, arguments))
    elif origin in (list, tuple) and isinstance(value, list | origin):
        if origin is list or arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(value) == len(arguments):
            pairs = zip(value, arguments, strict=True)
            return origin(typed(f"{name}[{i}]", *pair) for i, pair in enumerate(pairs))
    elif origin is dict and isinstance(value, dict):
        return {
            typed(f"a name in {name}", key, arguments[0]): typed(f"{name}.{key}", one, arguments[1])
            for key, one in value.items()
        }
    elif inspect.isclass(hint) and issubclass(hint, Options):
        return value if isinstance(value, hint) else hint.of(typed(name, value, dict), name)
    elif hint in (bool, str, dict, types.NoneType) and isinstance(value, hint):
        return value
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif (
        hint in (int, float)
        and isinstance(value, (int, hint))
        and not isinstance(value, bool)
        and (hint is int or abs(value) <= sys.float_info.max)
    ):
        return hint(value)
    raise ValueError(f"`{name}` (={quoted(value)}) must be {_words(hint)}")


def _words(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(hint) is dict:
        return f"a dict of {_words(arguments[1])} by name"
    if typing.get_origin(hint) is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {_words(arguments[0])}"
        return f"a list of {len(arguments)}: {', '.join(map(_words, arguments))}"
    plain = {bool: "true or false", int: "an integer", float: "a finite number", str: "a string",
             Path: "a path", dict: "a dict", types.NoneType: "null"}  # fmt: skip
    return plain.get(hint, str(hint))


def arguments_of(
    function: Callable[..., Any],
    values: Mapping[str, object],
    what: str,
    *,
    skip: Iterable[str] = (),
    numbers: Iterable[str] = (),
    complete: bool = False,
) -> dict[str, Any]:
    """``values`` as arguments of ``function``, each of the type that its signature says.

    Args:
        function: a class or a function whose arguments have the types that `typed` knows.
        values: by name.
        what: they are, for the error.
        skip: arguments that may not be among them.
        numbers: further names, of floats, that a ``**`` argument takes.
        complete: whether each must be there, even one with a default.

    Raises:
        ValueError: an unknown name, a missing one, or a value of another type.
    """
    called = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(called)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in set(skip) and parameter.kind not in variable
    ]
    hints |= dict.fromkeys(numbers, float)
    known += numbers
    for name in values:
        one_of(what, name, known)
    if complete and (missing := [name for name in known if name not in values]):
        raise ValueError(f"there is no {what} {', '.join(missing)}")
    return {name: typed(name, value, hints[name]) for name, value in values.items()}


def within(default: Any, *interval: float, **ends: bool) -> Any:
    """Returns a field of `Options`: None, or a number `in_range` of ``interval`` and ``ends``."""
    return field(default=default, metadata={"within": interval, "ends": ends})


@dataclass(frozen=True)
class Options:
    """A group of options, each of the type that its field says, as `typed` has it.

    Raises:
        ValueError: a value of another type, or whatever `check` finds.
    """

    prefix: ClassVar[str] = ""  # of the options' names in errors

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for one in fields(self):
            value = typed(one.name, getattr(self, one.name), hints[one.name])
            object.__setattr__(self, one.name, value)
        self.check()

    def check(self) -> None:
        """Raises a ValueError for a number that is not `within` its field's range."""
        for one in fields(self):
            value = getattr(self, one.name)
            if "within" in one.metadata and value is not None:
                name, interval = self.prefix + one.name, one.metadata["within"]
                in_range(name, value, *interval, **one.metadata["ends"])

    @classmethod
    def of(cls, values: Mapping[str, object], what: str, *, complete: bool = False) -> Self:
        """The options of these names and values, checked as by `arguments_of`."""
        return cls(**arguments_of(cls, values, what, complete=complete))

    def part(self, kind: type[Any]) -> dict[str, Any]:
        """Those of the options, by name, that ``kind``, a base of this class, has."""
        return {one.name: getattr(self, one.name) for one in fields(kind)}

    def plain(self) -> dict[str, Any]:
        """The options by name, in types that a checkpoint may hold."""
        return {n: str(v) if isinstance(v, Path) else v for n, v in asdict(self).items()}


def load_yaml(text: str) -> Any:
    """Returns the values of YAML; a number such as 1e-3, a string in YAML 1.1, becomes a number.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    import yaml  # not for the core

    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
