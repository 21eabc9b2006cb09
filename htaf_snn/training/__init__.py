"""Training and evaluation with Lightning."""

from .module import NEURONS as NEURONS
from .module import SpikingClassifier as SpikingClassifier
