"""What every test runs under: a seed, NaN in uninitialised memory, a cache of its own.

Under pytest-xdist the workers share that cache, and each uses one thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic, as below

SHARED_DATA = Path(
    os.environ.get("HTAF_SNN_DATA", Path(__file__).parents[2] / "shared" / "data")
).resolve()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that the session's tests share with the processes that they start.

    It is empty at first, unless `HTAF_SNN_TEST_CACHE` names one.
    """
    base = tmp_path_factory.getbasetemp()
    folder = Path(
        os.environ.get("HTAF_SNN_TEST_CACHE", (base.parent if WORKER else base) / "cache")
    )
    folder.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTAF_SNN_CACHE", str(folder))
        # A kernel takes half the time to compile so, and its loops are vectors all the same;
        # tests/neurons/test_fused.py compiles as users do.
        patch.setenv("CXX", os.environ.get("CXX", "c++ -O1 -ftree-vectorize"))
        yield folder


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HTAF_SNN_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # also fills torch.empty with NaN
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def shared_data() -> Path:
    """Real data beside the project; see its README.md."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set HTAF_SNN_DATA")
    return SHARED_DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
