"""Static and event data as frames [T, C, H, W]."""

from ..extras import need

need("train")

from .data_set import DataSet as DataSet
from .data_set import Opened as Opened
from .module import SpikingDataModule as SpikingDataModule
from .options import DataConfig as DataConfig
from .registry import DATA_SETS as DATA_SETS
from .registry import data_set as data_set
from .samples import Encoder as Encoder
from .samples import Samples as Samples
from .splits import Splits as Splits
from .splits import split as split
