"""Networks by name, for command lines and configuration files."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet, spiking_vgg
from torch import nn

from ..arguments import by_name_or_path
from ..neurons import LIFNode
from ..neurons.batch_norm import average_norms
from ..process import physical
from .networks import SpikingMLP, SpikingResNet, SpikingVGG
from .parts import LARGEST_SIDE, SMALLEST_SIDE, Norm, check_sizes


@dataclass(frozen=True)
class Model:
    """A network that has a name.

    Args:
        name: what `model` knows it by.
        build: the network's class, or the function that makes it.
        source: where the architecture is published.
        smallest_side: of a frame, in pixels.
        largest_side: of a frame, in pixels; None for no limit.
        channels: of a frame; None for any number.
        reference: (in_shape, num_classes) that the architecture is published for.
        takes_T: whether ``build`` takes the number of time steps, ``T``, and the network no other.
        stages: how many numbers of blocks ``build`` takes as ``depths``.
    """

    name: str
    build: Callable[..., nn.Module]
    source: str
    smallest_side: int = SMALLEST_SIDE
    largest_side: int | None = LARGEST_SIDE
    channels: int | None = None
    reference: tuple[tuple[int, int, int], int] = ((3, 32, 32), 10)
    takes_T: bool = False
    stages: int = 0

    def parameters(self) -> int:
        """The number of parameters of the network for its `reference`, without its neurons'."""
        with torch.device("meta"):
            net = self.build(*self.reference, spiking_neuron=nn.Identity, **_AS_IT_IS)
        return sum(parameter.numel() for parameter in net.parameters())


def model_names() -> list[str]:
    """The names that `model` knows: ours, then SpikingJelly's for ImageNet sizes."""
    return list(MODELS)


def models() -> str:
    """The networks, a line each: name, parameters, frame sizes in pixels, where published."""
    lines = [f"{'name':34} {'parameters':>10}  {'pixels':9}  source"]
    for entry in MODELS.values():
        most = entry.largest_side
        sides = f"{entry.smallest_side} to {most}" if most else f"from {entry.smallest_side}"
        lines.append(
            f"{entry.name:34} {entry.parameters() / 1e6:8.2f} M  {sides:9}  {entry.source}"
        )
    return "\n".join(lines)


def takes_T(name: str) -> bool:
    """Returns True for a network with weights for each time step, which `model` takes ``T`` for."""
    return name in MODELS and MODELS[name].takes_T


def check_depths(name: str | None, depths: int | tuple[int, ...]) -> None:
    """Checks the number of blocks of a spiking transformer, or of each of its stages.

    Raises:
        ValueError: another network's, another number of stages, or a number below 1.
    """
    stages = {entry.name: entry.stages for entry in MODELS.values() if entry.stages}
    given = (depths,) if isinstance(depths, int) else depths
    if len(given) != stages.get(name or "") or min(given) < 1:
        takers = ", ".join(f"{taker} ({count})" for taker, count in stages.items())
        raise ValueError(
            f"`depths` (={depths}) must be the blocks, 1 or more, of each stage of {takers}; "
            f"the model is {name}"
        )


def default_model(shape: tuple[int, int, int] | None) -> str:
    """The name of the network that frames (C, H, W) are trained on unless another is named."""
    return "mlp" if shape is not None and min(shape[1:]) < SMALLEST_SIDE else "vgg_small"


def model(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    spiking_neuron: Callable[..., nn.Module] = LIFNode,
    width: float = 1.0,
    norm: Norm = "bn",
    dropout: float = 0.0,
    **kwargs: Any,
) -> nn.Module:
    """Builds the network that ``name`` names.

    A name with ``imagenet_`` is SpikingJelly's own function of that name, which takes 3 channels
    and has its own norm and dropout. Its MS-ResNets, whose logits are averaged over time already,
    are not among them. "spikformer", "qkformer", "maxformer", "spike_driven_transformer" and
    "masnn" are SpikingJelly's; see `transformers.transformer` for ``depths`` and masnn's ``T``.

    Args:
        name: one of `model_names`; or the import path of a class of one's own,
            ``"my_module.MyNet"``, a `torch.nn.Module` that takes ``in_shape``, ``num_classes``,
            ``spiking_neuron`` and every neuron's arguments as keywords, and of ``width``, ``norm``
            and ``dropout`` those that are not as here.
        in_shape: (C, H, W) of a frame. A pooling that would leave no pixel is left out; how small
            H and W can be is in ``MODELS[name].smallest_side``.
        num_classes: outputs of the read-out, >= 1.
        spiking_neuron: the neuron's class, one of ours or of SpikingJelly's.
        width: factor on every channel count, rounded, at least 1 channel; > 0.
        norm: "bn", or "tdbn" for threshold-dependent batch norm.
        dropout: probability that an input of the read-out is zero, in [0, 1).
        **kwargs: arguments of every neuron, copied for each, for example
            ``surrogate_function=HTAFSpike()``; for "vgg_small" and "mlp" also ``widths``.

    Shape:
        the network's input is [T, N, C, H, W], its output [T, N, num_classes].

    Raises:
        ValueError: an unknown name (the error lists the known ones), a size that the network does
            not take (the error says which it takes), or another argument out of range.
    """
    entry = _entry(name)
    try:
        check_sizes(in_shape, num_classes, entry.smallest_side, entry.largest_side, entry.channels)
        build = partial(
            entry.build, in_shape, num_classes, spiking_neuron=spiking_neuron, width=width,
            norm=norm, dropout=dropout, **kwargs,
        )  # fmt: skip
        with torch.device("meta"):
            net = build()
        size = sum(parameter.numel() for parameter in net.parameters())
        if _BYTES_A_PARAMETER * size > physical():
            raise ValueError(
                f"the network would have {size:.3g} parameters, more than this machine's memory "
                "holds in training; lower `width`, `widths` or the number of classes"
            )
        return build()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _entry(name: str) -> Model:
    known: dict[str, Any] = dict(MODELS)
    found = by_name_or_path("model", name, known, is_network, "subclass of torch.nn.Module")
    if isinstance(found, Model):
        return found
    as_it_is = _AS_IT_IS.items()

    def build(in_shape: tuple[int, int, int], num_classes: int, **options: Any) -> nn.Module:
        given = {key: value for key, value in options.items() if (key, value) not in as_it_is}
        try:
            inspect.signature(found).bind(in_shape, num_classes, **given)
        except TypeError as error:
            raise ValueError(f"{error}; see htaf_snn.models.model") from error
        return found(in_shape, num_classes, **given)

    return Model(name, build, "one's own", smallest_side=1, largest_side=None)


def is_network(found: object) -> bool:
    """Returns True for a class that `model` builds a network of."""
    return inspect.isclass(found) and issubclass(found, nn.Module)


_AS_IT_IS: dict[str, Any] = {"width": 1, "norm": "bn", "dropout": 0}  # a network that others made
_BYTES_A_PARAMETER = 16  # float32: its value, its gradient, and AdamW's two moments


def _without_fixed(given: dict[str, Any], *fixed: str) -> dict[str, Any]:
    """The arguments of a network of SpikingJelly's, without those that are fixed in it."""
    for name in fixed:
        if (value := given.pop(name)) != _AS_IT_IS[name]:
            raise ValueError(
                f"`{name}` (={value!r}) must be {_AS_IT_IS[name]!r}: SpikingJelly's own network is "
                "fixed"
            )
    return given


def _imagenet(function: Any, _: Any, num_classes: int, **given: Any) -> nn.Module:
    net = function(num_classes=num_classes, **_without_fixed(given, *_AS_IT_IS))
    functional.set_step_mode(net, "m")
    average_norms(net)
    return net


def _transformer(name: str, *args: Any, **given: Any) -> nn.Module:
    from .transformers import transformer  # SpikingJelly's take 1 s to import

    if given.get("depths") is not None:
        check_depths(name, given["depths"])
    return transformer(name, *args, **_without_fixed(given, "norm", "dropout"))


_HE = "He et al. 2016, arXiv 1512.03385"
_SIMONYAN = "Simonyan and Zisserman 2015, arXiv 1409.1556, with batch norm"
_FANG = "Fang et al. 2021, arXiv 2102.04159"
_HU = "Hu et al. 2021, arXiv 2112.08954"

_TORCHVISIONS: dict[str, tuple[int | tuple[int, ...], ...]] = {
    "vgg11": (64, 128, (256,) * 2, (512,) * 2, (512,) * 2),
    "vgg13": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "vgg16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
}
_torchvisions = partial(SpikingVGG, bias=True, read_out_side=1)
_averaging = partial(SpikingVGG, pooling="average")
_VGGS = [
    Model("vgg_small", SpikingVGG, "this package"),
    Model(
        "vgg5",
        partial(_averaging, widths=(64, (128, 128)), read_out_side=8, hidden=1024),
        "Rathi et al. 2020, arXiv 2005.01807, convolutions; fully connected as VGG-9",
    ),
    Model(
        "vgg9",
        partial(_averaging, widths=((64, 64), (128, 128), (256, 256, 256)), hidden=1024),
        "Lee et al. 2020, arXiv 1903.06379; norms as Kim and Panda 2021, arXiv 2010.01729",
    ),
    Model(
        "vgg_snn",
        partial(_averaging, widths=((64, 128), (256, 256), (512, 512), (512, 512)), bias=True),
        "VGGSNN of Deng et al. 2022, arXiv 2202.11946",
        reference=((2, 48, 48), 10),
    ),
    *(
        # Of the five poolings at most the last is left out.
        Model(name, partial(_torchvisions, widths=widths), _SIMONYAN, smallest_side=16)
        for name, widths in _TORCHVISIONS.items()
    ),
]

_wide = partial(SpikingResNet, widths=(64, 128, 256, 512), stem=64, shortcut="convolution")
_RESNETS = [
    Model("resnet18", partial(_wide, blocks=(2, 2, 2, 2)), _HE),
    Model(
        "resnet19",
        partial(_wide, blocks=(3, 3, 2), widths=(128, 256, 512), hidden=256),
        "Zheng et al. 2021, arXiv 2011.05280",
    ),
    Model("resnet20", partial(SpikingResNet, blocks=(3, 3, 3)), _HE),
    Model("resnet32", partial(SpikingResNet, blocks=(5, 5, 5)), _HE),
    Model("resnet34", partial(_wide, blocks=(3, 4, 6, 3)), _HE),
]

_FORMS = [
    Model(f"{form}_{one.name}", partial(one.build, form=form), f"{one.source}; {source}")
    for form, source in (("sew", _FANG), ("ms", _HU))
    for one in _RESNETS
]
_MLP = Model(
    "mlp", SpikingMLP, "this package; fully connected", smallest_side=1, largest_side=None,
    reference=((1, 1, 700), 20),
)  # fmt: skip
_TRANSFORMERS = [
    Model(
        name, partial(_transformer, name), f"{source}; SpikingJelly's", takes_T=name == "masnn",
        stages=stages,
    )
    for name, stages, source in (
        ("spikformer", 1, "Zhou et al. 2023, arXiv 2209.15425"),
        ("qkformer", 3, "Zhou et al. 2024, arXiv 2403.16552"),
        ("maxformer", 3, "Fang et al. 2025, arXiv 2505.18608"),
        ("spike_driven_transformer", 1, "Yao et al. 2023, arXiv 2307.01694"),
        ("masnn", 0, "Yao et al. 2023, MA-SNN, arXiv 2209.13929"),
    )
]  # fmt: skip
_IMAGENET = [
    Model(
        f"imagenet_{name}", partial(_imagenet, partial(getattr(module, name), **options)),
        f"SpikingJelly's {name}", smallest_side=32, largest_side=None, channels=3,
        reference=((3, 224, 224), 1000),
    )
    for module, options in ((spiking_vgg, {}), (spiking_resnet, {}), (sew_resnet, {"cnf": "ADD"}))
    for name in module.__all__
    if name.islower()
]  # fmt: skip
MODELS: dict[str, Model] = {
    entry.name: entry for entry in [*_VGGS, *_RESNETS, *_FORMS, _MLP, *_TRANSFORMERS, *_IMAGENET]
}
