"""Training and evaluation with Lightning, and the commands that use a checkpoint.

`SpikingClassifier` trains a network by direct BPTT in one of three recipes; `fit` writes what
`test`, `predict`, `gap` and `export` read. Imports `data`, `exporting`, `models`, `neurons`,
`surrogates` and `transfer`.
"""

from ..extras import need

need("train")

from .config import ModelConfig as ModelConfig
from .module import SpikingClassifier as SpikingClassifier
