"""htaf_snn: surrogate-free spike functions and neurons for SpikingJelly 2."""

from typing import Any as _Any

from ._version import __version__ as __version__
from .neurons import BackendUnavailableError as BackendUnavailableError
from .neurons import IFNode as IFNode
from .neurons import LIFNode as LIFNode
from .neurons import Neuron as Neuron
from .neurons import ParametricLIFNode as ParametricLIFNode
from .neurons import backends as _backends
from .neurons import convert as convert
from .neurons import explain as explain
from .neurons import revert as revert
from .registry import register as register
from .surrogates import HTAF as HTAF
from .surrogates import HTAFSpike as HTAFSpike
from .surrogates import ScaledSigmoid as ScaledSigmoid
from .surrogates import SpikeFunction as SpikeFunction
from .surrogates import StraightThrough as StraightThrough
from .surrogates import spike_function as spike_function
from .surrogates import spike_function_names as spike_function_names
from .transfer import SharpnessSchedule as SharpnessSchedule
from .transfer import binarity as binarity
from .transfer import calibrate as calibrate
from .transfer import harden as harden
from .transfer import transfer_gap as transfer_gap

backends = _backends.backends


def __getattr__(name: str) -> _Any:
    """`export` is imported when it is first asked for, as it is seldom and torch.fx is slow."""
    if name == "export":
        from .exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
