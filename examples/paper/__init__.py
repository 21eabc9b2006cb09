"""The numbers and the drawing of `examples/paper_figures.py`."""
