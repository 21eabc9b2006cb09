"""Classes of ours before a host's: what its objects change their class to, and back."""

import functools
from typing import Any

ORIGINAL_OF: dict[type, type[Any]] = {}  # by a class of ours, what its objects were


@functools.cache
def mixed(ours: Any, host: Any) -> Any:
    """The class ``ours`` before ``host``, by the host's name; its objects are copied and pickled.

    Args:
        ours: a class for all of a kind, such as `BackendNode`.
        host: torch's, SpikingJelly's, or a user's.
    """
    made = type(host.__name__, (ours, host), {"__reduce_ex__": _reduce})
    ORIGINAL_OF[made] = host
    return made


def _reduce(self: Any, _protocol: Any) -> Any:
    return _empty, type(self).__bases__, self.__getstate__()


def _empty(ours: type, host: type) -> Any:
    return object.__new__(mixed(ours, host))
