"""Static and event data as frames [T, C, H, W]."""

from ..extras import need

need("train")

from .definition import DataConfig as DataConfig
from .definition import DataSet as DataSet
from .encoders import Encoder as Encoder
from .module import SpikingDataModule as SpikingDataModule
from .registry import DATA_SETS as DATA_SETS
from .registry import data_set as data_set
from .samples import Samples as Samples
from .splits import Splits as Splits
from .splits import split as split
