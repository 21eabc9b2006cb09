"""Speed and memory of the neurons, beside SpikingJelly's and a ReLU, and of the data.

They stay out of the wheel; run them from the repository's root: `python -m benchmarks neuron`.
"""

from .data import data as data
from .memory import memory as memory
from .neuron import neuron as neuron
from .overhead import overhead as overhead
from .train import train as train
