"""Training and evaluation with Lightning."""

from ..extras import need

need("train")

from .config import ModelConfig as ModelConfig
from .module import SpikingClassifier as SpikingClassifier
