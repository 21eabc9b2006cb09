"""Spiking neurons on fused kernels: SpikingJelly's, and one's own.

A neuron's step is traced (`step`), printed as C, compiled and called (`kernels`), and computes the
batch norm before it where nothing else reads that. Imports `surrogates`.
"""

# Fails where the package is imported through the root link, which would make second copies.
from .._version import __version__ as __version__
from .base import BackendNode as BackendNode
from .convert import convert as convert
from .convert import revert as revert
from .explain import explain as explain
from .kernels import Backend as Backend
from .kernels import BackendUnavailableError as BackendUnavailableError
from .kernels import backends as backends
from .kernels import check_backend as check_backend
from .nodes import IFNode as IFNode
from .nodes import LIFNode as LIFNode
from .nodes import ParametricLIFNode as ParametricLIFNode
from .own import Neuron as Neuron
from .resolve import refresh as refresh
