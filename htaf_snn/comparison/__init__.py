"""Comparing spike functions by the accuracy of the network that fires."""

from ..extras import need

need("compare")

from .compare import compare as compare
from .contender import Contender as Contender
from .contender import split_labels as split_labels
from .page import report as report
from .page import write_report as write_report
from .results import Run as Run
from .results import read_results as read_results
from .run import Task as Task
from .study import Study as Study
from .study import preset as preset
from .tables import aligned as aligned
from .tables import table as table
