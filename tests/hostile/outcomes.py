"""What comes of bad input."""

from __future__ import annotations

from typing import Any

Change = Any  # what a kind changes its good input by; its `repr` is what a report shows

REFUSED, ACCEPTED, SILENT, TRACEBACK = "refused", "accepted", "silent", "traceback"
