"""Static and event data as frames [T, C, H, W].

A table of data sets, readers of recordings, caches of frames, and Lightning's data module over
them; a run can stop at any batch and go on. Imports no other subpackage.
"""

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
