"""Comparing spike functions by the accuracy of the network that fires."""

from .compare import compare as compare
from .report import draw as draw
from .report import table as table
from .run import Run as Run
from .write import write_report as write_report
