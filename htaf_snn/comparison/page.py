"""The comparison as one HTML page that needs no network."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from .conclusion import conclude, conclude_all
from .figures import Looks
from .pictures import Picture
from .statistics import REFERENCE, Summary
from .tables import COLUMNS, ENERGY_SOURCE


def render(
    summaries: Mapping[str, Sequence[Summary]],
    looks: Looks,
    figures: Mapping[str, Sequence[Picture]],
    functions: Picture,
    sensitivity: Sequence[Picture],
    command: str,
) -> str:
    """The page's text; whatever comes from the runs is escaped.

    Args:
        summaries: the contenders of each data set.
        looks: of each contender.
        figures: of each data set.
        functions: the spike functions.
        sensitivity: one a data set, or none.
        command: what a reader types to repeat the comparison.
    """
    runs = [run for contenders in summaries.values() for s in contenders for run in s.runs]
    template = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        reference=REFERENCE,
        overall=conclude_all(summaries),
        conclusions={data: conclude(contenders) for data, contenders in summaries.items()},
        columns=COLUMNS,
        summaries=summaries,
        looks=looks,
        figures=figures,
        functions=functions,
        sensitivity=sensitivity,
        command=command,
        runs=runs,
        settings={
            data: common([(run.spike, run.settings) for run in runs if run.data == data])
            for data in summaries
        },
        versions=common([(f"{r.data}, {r.spike}, seed {r.seed}", r.versions) for r in runs]),
        energy_source=ENERGY_SOURCE,
    )


def common(settings: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Settings of several runs as one table: a value that all share, else who has which.

    Args:
        settings: of each run, behind the name that it goes by; nested dicts become dotted names.
    """
    flat = [(holder, _flatten(own)) for holder, own in settings]
    names = dict.fromkeys(name for _, own in flat for name in own)  # in order, each once
    table = {}
    for name in names:
        holders: dict[str, dict[str, None]] = {}
        for holder, own in flat:
            holders.setdefault(own.get(name, "not set"), {})[holder] = None
        if len(holders) == 1:
            (table[name],) = holders
        else:
            table[name] = "; ".join(f"{value} ({', '.join(own)})" for value, own in holders.items())
    return table


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat
