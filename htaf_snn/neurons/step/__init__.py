"""A neuron's step, from plain torch to C; it knows neither modules nor devices."""
