"""A trained network as other frameworks and hardware take it: NIR, ONNX, SpikingJelly's code.

What is written is run and compared with the original, output by output. Imports `models`,
`neurons`, `surrogates` and `transfer`.
"""

from .write import SUFFIX as SUFFIX
from .write import Exported as Exported
from .write import Format as Format
from .write import export as export
from .write import files_of as files_of
