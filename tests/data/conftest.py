"""Reading without a process for each file, where its end is not what is tested."""

from __future__ import annotations

import multiprocessing

import pytest


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets HDF5 files and ROS bags be read in this process, as where none can be forked."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
