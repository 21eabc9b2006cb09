"""Spiking networks by name, for small inputs, and SpikingJelly's own.

Each takes any neuron class and runs on sequences [T, N, C, H, W]; a norm, a neuron and a read-out
stand in `parts`. Imports `neurons`.
"""

from spikingjelly.activation_based.layer import (
    ThresholdDependentBatchNorm2d as ThresholdDependentBatchNorm2d,
)

from .networks import SpikingMLP as SpikingMLP
from .networks import SpikingResNet as SpikingResNet
from .networks import SpikingVGG as SpikingVGG
from .registry import MODELS as MODELS
from .registry import Model as Model
from .registry import default_model as default_model
from .registry import model as model
from .registry import model_names as model_names
