"""Speed and memory of the neurons, beside SpikingJelly's and a ReLU, in one run."""

from .memory import memory as memory
from .neuron import neuron as neuron
from .train import train as train
