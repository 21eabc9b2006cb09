"""Spiking networks."""

from .vgg import SpikingVGG as SpikingVGG
