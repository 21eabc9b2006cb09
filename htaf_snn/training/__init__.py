"""Training and evaluation with Lightning."""

from .firing import firing_as_trained as firing_as_trained
from .firing import firing_hard as firing_hard
from .firing import spike_functions as spike_functions
from .module import NEURONS as NEURONS
from .module import SpikingClassifier as SpikingClassifier
