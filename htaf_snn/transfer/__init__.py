"""From the smooth network that is trained to the hard one that fires, and the gap between them.

Schedules of sharpness bring the step in, calibration fits the norms to it, and the diagnosis says
where the gap is. Imports `neurons` and `surrogates`.
"""

from .calibration import batch_statistics as batch_statistics
from .calibration import calibrate as calibrate
from .calibration import freeze_norms as freeze_norms
from .calibration import initialise as initialise
from .calibration import norms_of as norms_of
from .calibration import trains_by_batch as trains_by_batch
from .diagnosis import Binarity as Binarity
from .diagnosis import LayerGap as LayerGap
from .diagnosis import TransferGap as TransferGap
from .diagnosis import accuracy as accuracy
from .diagnosis import binarity as binarity
from .diagnosis import transfer_gap as transfer_gap
from .firing import BinarySteps as BinarySteps
from .firing import Shape as Shape
from .firing import SharpnessSchedule as SharpnessSchedule
from .firing import binary_steps as binary_steps
from .firing import firing_as_trained as firing_as_trained
from .firing import firing_hard as firing_hard
from .firing import harden as harden
from .firing import spike_functions as spike_functions
from .firing import unit_gradients as unit_gradients
