"""Static and event data as frames [T, C, H, W]."""

from .module import SpikingDataModule as SpikingDataModule
from .registry import DATA_SETS as DATA_SETS
from .registry import DataSet as DataSet
from .registry import data_set as data_set
