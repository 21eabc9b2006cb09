"""Speed and memory of the neurons, beside SpikingJelly's and a ReLU, and of the data."""

from .data import data as data
from .memory import memory as memory
from .neuron import neuron as neuron
from .overhead import overhead as overhead
from .train import train as train
