"""Comparing spike functions by the accuracy of the network that fires."""

from ..extras import need

need("compare")

from .compare import Study as Study
from .compare import compare as compare
from .compare import preset as preset
from .compare import sensitivity as sensitivity
from .contender import Contender as Contender
from .contender import Run as Run
from .contender import split_labels as split_labels
from .page import write_report as write_report
from .run import Task as Task
from .tables import aligned as aligned
from .tables import table as table
