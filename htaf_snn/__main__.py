"""`python -m htaf_snn`."""

from .cli import main

main()
