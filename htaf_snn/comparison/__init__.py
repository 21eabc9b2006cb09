"""Comparing spike functions by the accuracy of the network that fires.

A study's runs are trained alike, tested once and kept in one file, from which tables, tests of
significance, figures and a page are made. Imports `data`, `models`, `surrogates`, `training` and
`transfer`.
"""

from ..extras import need

need("compare")

from .compare import compare as compare
from .report import aligned as aligned
from .report import report as report
from .report import table as table
from .report import write_report as write_report
from .results import Run as Run
from .results import read_results as read_results
from .study import Contender as Contender
from .study import Study as Study
from .study import Task as Task
from .study import preset as preset
from .study import split_labels as split_labels
