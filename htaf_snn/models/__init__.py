"""Spiking networks."""

from spikingjelly.activation_based.layer import (
    ThresholdDependentBatchNorm2d as ThresholdDependentBatchNorm2d,
)

from .feedforward import SpikingMLP as SpikingMLP
from .feedforward import SpikingVGG as SpikingVGG
from .registry import MODELS as MODELS
from .registry import Model as Model
from .registry import default_model as default_model
from .registry import model as model
from .registry import model_names as model_names
from .resnet import SpikingResNet as SpikingResNet
