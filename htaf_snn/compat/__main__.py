"""Runs an old script: ``python -m htaf_snn.compat train.py --args``, or ``-m package.train``."""

import runpy
import sys
from pathlib import Path

from . import install

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    sys.exit("usage: python -m htaf_snn.compat script.py [arguments], or -m module [arguments]")
install()
if sys.argv[1] == "-m":
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
