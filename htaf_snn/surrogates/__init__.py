"""Spike functions: HTAF, the baselines, and every function by name.

Each is smooth in training and the exact step at inference, and goes where SpikingJelly takes a
surrogate. Imports no other subpackage.
"""

# Fails where the package is imported through the root link, which would make second copies.
from .._version import __version__ as __version__
from . import functional as functional
from .baselines import IntegerSpike as IntegerSpike
from .baselines import ScaledSigmoid as ScaledSigmoid
from .baselines import StraightThrough as StraightThrough
from .baselines import smooth_form as smooth_form
from .htaf import HTAF as HTAF
from .htaf import HTAFSpike as HTAFSpike
from .registry import is_built_in as is_built_in
from .registry import spike_function as spike_function
from .registry import spike_function_names as spike_function_names
from .registry import trains_smooth as trains_smooth
from .spike_function import Mode as Mode
from .spike_function import SpikeFunction as SpikeFunction
