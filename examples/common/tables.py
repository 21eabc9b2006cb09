"""Tabular data: a CSV file with a target column."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from htaf_snn.arguments import one_of

Task = Literal["auto", "classification", "regression"]

_MISSING = ("", "?", "na", "nan", "null")  # in any case
_CLASSES = 20  # a target of numbers with more values is a regression's, if the task is "auto"


@dataclass(frozen=True)
class Table:
    """A data set of N rows.

    Args:
        name: for people.
        numbers: columns of numbers [N, P], NaN where a value is missing.
        words: columns of categories [N, Q]; a missing value is a category of its own.
        target: class numbers 0, 1, ... as int64, or floats in a regression [N].
        regression: whether the target is a quantity.
    """

    name: str
    numbers: NDArray[np.float64]
    words: NDArray[np.str_]
    target: NDArray[Any]
    regression: bool


@dataclass(frozen=True)
class CSVFile:
    """Where a table lies, and how it is read.

    Args:
        path: of the file, UTF-8.
        target: the target's column.
        task: "auto" takes a target of numbers with more than 20 values for a regression's.
        separator: one character.
        drop: columns to leave out.
        words: columns of numbers that are categories; a column without numbers is one anyway.
        header: names of the columns, for a file whose first line is data.
    """

    path: Path
    target: str
    task: Task = "auto"
    separator: str = ","
    drop: Sequence[str] = ()
    words: Sequence[str] = ()
    header: Sequence[str] = ()


def read_csv(file: CSVFile, name: str | None = None) -> Table:
    """Reads a table; empty cells, ``?``, ``NA``, ``NaN`` and ``null`` are missing values.

    Raises:
        OSError: there is no such file.
        ValueError: a column is absent or named twice, has no value, mixes numbers with words or
            looks like an identifier, a line is too short or too long, or the target is missing
            somewhere, constant, or a word where a number is due. The error names the line.
    """
    one_of("task", file.task, get_args(Task))
    path = file.path
    if not path.is_file():
        raise FileNotFoundError(f"expected a file at {path}; there is none")
    with path.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.reader(opened, delimiter=file.separator, skipinitialspace=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    header = list(file.header) or (rows.pop(0)[1] if rows else [])
    for column in (file.target, *file.drop, *file.words):
        if header.count(column) != 1:
            many = "more than one" if column in header else "no"
            raise ValueError(f"{path} has {many} column {column!r}; it has {', '.join(header)}")
    if not rows:
        raise ValueError(f"{path} has no rows")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} cells for {len(header)} columns")
    lines = [line for line, _ in rows]
    columns = dict(zip(header, zip(*(row for _, row in rows), strict=True), strict=True))
    target = _target(file, columns.pop(file.target), lines)
    numbers, words = [], []
    for column, cells in columns.items():
        if column in file.drop:
            continue
        where = f"{path}, column {column!r}"
        values = None if column in file.words else _numbers(where, cells, lines)
        if values is not None:
            numbers.append(values)
        elif len(set(cells)) > max(_CLASSES, len(cells) / 2):
            raise ValueError(f"{where} has {len(set(cells))} different words; drop it")
        else:
            words.append(cells)
    regression = target.dtype == np.float64
    return Table(
        name or path.stem,
        np.array(numbers, np.float64).reshape(-1, len(rows)).T,
        np.array(words, str).reshape(-1, len(rows)).T,
        target,
        regression,
    )


def _target(file: CSVFile, cells: Sequence[str], lines: Sequence[int]) -> NDArray[Any]:
    where = f"{file.path}, target {file.target!r}"
    for line, cell in zip(lines, cells, strict=True):
        if cell.lower() in _MISSING:
            raise ValueError(f"{where}, line {line}: {cell!r} is no value")
    if len(set(cells)) < 2:
        raise ValueError(f"{where} is constant: {cells[0]!r} in every row")
    values = None if file.task == "classification" else _numbers(where, cells, lines)
    if values is None and file.task == "regression":
        raise ValueError(f"{where}, line {lines[0]}: {cells[0]!r} where a number is due")
    if values is not None and (file.task == "regression" or len(set(values)) > _CLASSES):
        return np.array(values, np.float64)
    return np.unique(np.array(cells), return_inverse=True)[1]


def _numbers(where: str, cells: Sequence[str], lines: Sequence[int]) -> list[float] | None:
    """A column's numbers, NaN where missing; None of a column of words."""
    values = [_number(cell) for cell in cells]
    if all(value is not None and math.isnan(value) for value in values):
        raise ValueError(f"{where} has no value; drop it")
    if all(value is None or math.isnan(value) for value in values):
        return None
    numbers = []
    for line, cell, value in zip(lines, cells, values, strict=True):
        if value is None:
            raise ValueError(f"{where}, line {line}: {cell!r} in a column of numbers")
        numbers.append(value)
    return numbers


def _number(cell: str) -> float | None:
    """A finite number, NaN where the value is missing, None of a word."""
    if cell.lower() in _MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
