"""The paper's figures about HTAF as a function, and about the gradients it passes on."""

from .write import NAMES as NAMES
from .write import write as write
