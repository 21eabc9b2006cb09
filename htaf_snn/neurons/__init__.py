"""Spiking neurons on fused kernels: SpikingJelly's, and one's own."""

# Fails where the package is imported through the root link, which would make second copies.
from .._version import __version__ as __version__
from .backends import Backend as Backend
from .backends import BackendUnavailableError as BackendUnavailableError
from .base import BackendNode as BackendNode
from .convert import convert as convert
from .convert import revert as revert
from .dynamics import Neuron as Neuron
from .explain import explain as explain
from .if_node import IFNode as IFNode
from .lif_node import LIFNode as LIFNode
from .plif_node import ParametricLIFNode as ParametricLIFNode
