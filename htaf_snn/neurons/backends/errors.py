"""Why a backend can't run."""


class BackendUnavailableError(RuntimeError):
    """A backend cannot run here, or not this neuron; the message names the reason and remedy."""
