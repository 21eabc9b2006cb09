"""htaf_snn: surrogate-free spike functions and neurons for SpikingJelly 2."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .exporting import export as export
    from .neurons import BackendUnavailableError as BackendUnavailableError
    from .neurons import IFNode as IFNode
    from .neurons import LIFNode as LIFNode
    from .neurons import Neuron as Neuron
    from .neurons import ParametricLIFNode as ParametricLIFNode
    from .neurons import backends as backends
    from .neurons import convert as convert
    from .neurons import explain as explain
    from .neurons import refresh as refresh
    from .neurons import revert as revert
    from .neurons.registry import register as register
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
    from .transfer import initialise as initialise
    from .transfer import transfer_gap as transfer_gap

# Where each name is. It is imported when it is first asked for: `htaf-snn --help` and a signal that
# comes early wait for no torch.
_MODULES = {
    "exporting": "export",
    "neurons": "BackendUnavailableError IFNode LIFNode Neuron ParametricLIFNode backends convert "
    "explain refresh revert",
    "neurons.registry": "register",
    "surrogates": "HTAF HTAFSpike ScaledSigmoid SpikeFunction StraightThrough spike_function "
    "spike_function_names",
    "transfer": "SharpnessSchedule binarity calibrate harden initialise transfer_gap",
}  # fmt: skip
_PACKAGES = ("exporting", "neurons", "surrogates", "transfer", "data", "models", "training")
_WHERE = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = list(_WHERE)


def __getattr__(name: str) -> _Any:
    if name in _PACKAGES:
        return _import_module(f".{name}", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(_import_module(f".{_WHERE[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
