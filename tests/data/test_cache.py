"""The data cache: nothing is read from a folder that others can change."""

from __future__ import annotations

from pathlib import Path

import pytest

from htaf_snn.data.cache import build_once


def test_a_folder_that_others_can_write_to_is_not_read(tmp_path: Path) -> None:
    target = tmp_path / "built"
    assert build_once(target, lambda partial: (partial / "x").touch()) == target
    assert build_once(target, lambda _: pytest.fail("it is built")) == target
    target.chmod(0o777)
    with pytest.raises(OSError, match=r"others can write to it.*rm -r"):
        build_once(target, lambda _: pytest.fail("it is built"))
