"""Training and evaluation with Lightning."""

from ..extras import need

need("train")

from .module import SpikingClassifier as SpikingClassifier
