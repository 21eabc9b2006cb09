"""The command line `python -m benchmarks NAME`: each benchmark is a function, its options its."""

from jsonargparse import auto_cli

from . import data, memory, neuron, overhead, train

print(auto_cli([neuron, overhead, train, memory, data], prog="python -m benchmarks"))
