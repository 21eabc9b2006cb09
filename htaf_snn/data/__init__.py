"""Static and event data as frames [T, C, H, W]."""

from ..extras import need

need("train")

from .data_set import DataSet as DataSet
from .data_set import Opened as Opened
from .loader import Encoder as Encoder
from .loader import Samples as Samples
from .module import DATA_SETS as DATA_SETS
from .module import SpikingDataModule as SpikingDataModule
from .module import data_set as data_set
from .options import DataConfig as DataConfig
from .splits import Splits as Splits
from .splits import split as split
