"""Memory, of this process and of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def peak_resident(restart: bool = False) -> int:
    """Largest resident size of this process so far, in bytes.

    On Linux it can restart from the present size, and is not `resource.getrusage`'s, which starts
    at the size of the process's parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        if restart:
            Path("/proc/self/clear_refs").write_text("5")
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def physical() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
