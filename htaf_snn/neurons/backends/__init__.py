"""Where a neuron's time loop runs: tracing a step, printing kernels, launching them."""

from . import cpu as cpu
from . import cuda as cuda
from . import operators as operators
from .errors import BackendUnavailableError as BackendUnavailableError
from .plan import Backend as Backend
from .plan import check_backend as check_backend
from .report import BackendStatus as BackendStatus
from .report import backends as backends
from .report import clear_kernels as clear_kernels
