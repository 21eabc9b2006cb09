"""Writes old.json anew: `python tests/compat/record.py`, which fetches the old packages.

It installs 0.0.0.0.12 and 0.0.0.0.14 in folders of their own and runs `cases` on each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RELEASES = ("12", "14")


def main() -> None:
    recorded: dict[str, Any] = {}
    for release in RELEASES:
        with tempfile.TemporaryDirectory() as folder:
            package = f"spikingjelly==0.0.0.0.{release}"
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
            subprocess.run([*install, "--target", folder, package], check=True)
            code = (
                f"import sys; sys.path[:0] = [{folder!r}, {str(HERE.parent)!r}]; import json;"
                f"from compat import cases; print(json.dumps(cases.record({release!r})))"
            )
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                check=True, stdout=subprocess.PIPE, env={**os.environ, "OLD_BACKEND": "torch"},
            )  # fmt: skip
        recorded[release] = json.loads(done.stdout)
    text = json.dumps(recorded, separators=(",", ":"))
    (HERE / "old.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
