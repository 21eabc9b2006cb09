"""A trained network, as other frameworks and hardware take it."""

from .write import SUFFIX as SUFFIX
from .write import Exported as Exported
from .write import Format as Format
from .write import export as export
from .write import files_of as files_of
