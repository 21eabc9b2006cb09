"""Training and evaluation with Lightning."""

from ..extras import need

need("train")

from .module import SpikingClassifier as SpikingClassifier
from .plain import classification_loss as classification_loss
from .plain import train_plain as train_plain
