"""Kernels of a traced step: what they are called with, and who compiles and calls them."""

from .compiler import BackendUnavailableError as BackendUnavailableError
from .device import Backend as Backend
from .device import BackendStatus as BackendStatus
from .device import backends as backends
from .device import check_backend as check_backend
