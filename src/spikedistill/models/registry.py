"""Every network by name: a line a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from spikedistill.errors import UserError, unknown
from spikedistill.models.elastic import elastic_resnet
from spikedistill.models.elsewhere import PREFIX, from_timm
from spikedistill.models.msresnet import MsBasicBlock, MsBottleneck, MsResNet
from spikedistill.models.network import Network, checked_timesteps
from spikedistill.models.preresnet import PreActResNet
from spikedistill.models.pyramidnet import PyramidNet
from spikedistill.models.resnet import BasicBlock, Bottleneck, ResNet, SewBasicBlock, SewBottleneck
from spikedistill.models.small import LeNet5, TwoConv
from spikedistill.models.spikformer import Spikformer
from spikedistill.models.vgg import LAYOUTS, VGG
from spikedistill.models.vit import ViT
from spikedistill.spiking import LIF


@dataclass(frozen=True)
class ResNetLayout:
    """A ResNet's published layout.

    Attributes:
        block: ``basic`` or ``bottleneck``.
        depths: blocks per stage.
        width: planes of the first stage; each further stage has twice as many.
        hidden: width of a hidden layer before the classifier, in units of ``width``.
    """

    block: str
    depths: tuple[int, ...]
    width: int = 64
    hidden: int = 0


RESNETS: dict[str, ResNetLayout] = {
    "resnet14": ResNetLayout("basic", (2, 2, 2), width=16),
    "resnet18": ResNetLayout("basic", (2, 2, 2, 2)),
    "resnet19": ResNetLayout("basic", (3, 3, 2), width=128, hidden=2),
    "resnet20": ResNetLayout("basic", (3, 3, 3), width=16),
    "resnet34": ResNetLayout("basic", (3, 4, 6, 3)),
    "resnet50": ResNetLayout("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetLayout("bottleneck", (3, 4, 23, 3)),
    "resnet152": ResNetLayout("bottleneck", (3, 8, 36, 3)),
}

OUTPUTS = ("currents", "spikes")
OUTPUT = inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default=OUTPUTS[0])

# Prefix of the name to what builds the residual variant.
VARIANTS: dict[str, tuple[Callable[..., Network], dict[str, type[nn.Module]]]] = {
    "": (ResNet, {"basic": BasicBlock, "bottleneck": Bottleneck}),
    "sew-": (ResNet, {"basic": SewBasicBlock, "bottleneck": SewBottleneck}),
    "ms-": (MsResNet, {"basic": MsBasicBlock, "bottleneck": MsBottleneck}),
}


def _resnet(network: Callable[..., Network], block: type[nn.Module], layout: ResNetLayout) -> Callable[..., Network]:
    def build(
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        width: int = layout.width,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> Network:
        return network(
            block,
            layout.depths,
            tuple(width * 2**i for i in range(len(layout.depths))),
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            timesteps=timesteps,
            neuron=neuron,
            hidden=width * layout.hidden,
        )

    return build


def _preact(depth: int, widen: int = 1) -> Callable[..., Network]:
    def build(
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        width: int = 16,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> Network:
        return PreActResNet(
            (depth,) * 3,
            (width * widen, 2 * width * widen, 4 * width * widen),
            width,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            timesteps=timesteps,
            neuron=neuron,
        )

    return build


MODELS: dict[str, Callable[..., Network]] = {
    "2conv": TwoConv,
    "lenet5": LeNet5,
    **{name: partial(VGG, layout) for name, layout in LAYOUTS.items()},
    **{
        prefix + name: _resnet(network, blocks[layout.block], layout)
        for prefix, (network, blocks) in VARIANTS.items()
        for name, layout in RESNETS.items()
    },
    "preactresnet20": _preact(3),
    "wrn16-2": _preact(2, widen=2),
    "wrn28-4": _preact(4, widen=4),
    "pyramidnet18": PyramidNet,
    "spikformer-tiny": Spikformer,
    "vit-tiny": ViT,
    "elastic-resnet": elastic_resnet,
}

ANN_ONLY: dict[str, str] = {"vit-tiny": "spikformer-tiny"}
"""Networks without a spiking twin, each with the spiking network that it is the ANN side of."""


def list_models(ann_only: bool = False) -> list[str]:
    """The names of the networks that ``create_model`` builds as ANNs and as SNNs, sorted.

    Args:
        ann_only: those that it builds as ANNs only, too; they teach.
    """
    return sorted(name for name in MODELS if ann_only or name not in ANN_ONLY)


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The keyword options of a registered network beside ``timesteps`` and ``neuron``."""
    if name.startswith(PREFIX):
        return {key: inspect.signature(from_timm).parameters[key] for key in ("num_classes", "in_channels")}
    if name not in MODELS:
        raise unknown("model", name, list(MODELS))
    parameters = inspect.signature(MODELS[name]).parameters
    own = {
        key: value
        for key, value in parameters.items()
        if value.kind is inspect.Parameter.KEYWORD_ONLY and key not in ("timesteps", "neuron")
    }
    return own | {OUTPUT.name: OUTPUT}


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    spiking: bool = False,
    timesteps: int = 4,
    neuron: LIF | None = None,
    **options: int | str,
) -> Network:
    """Builds a registered network, as an ANN or as its spiking twin (same state-dict keys and shapes).

    A few networks are ANNs only, which teach (``list_models(ann_only=True)`` has them, too).

    Args:
        name: one of ``list_models(ann_only=True)``.
        num_classes: K, the number of logits.
        in_channels: C of the images.
        spiking: build the SNN.
        timesteps: T of the SNN.
        neuron: template that each layer copies; None takes ``LIF()``.
        options: what the network offers beside, such as ``width``, ``stem``, ``image_size``. Every one has ``output``:
            ``currents`` (an SNN's logits are averaged and never fired, Joint A-SNN equation 3) or ``spikes`` (output
            neurons fire, and a logit is a spike count divided by T, KDSNN algorithm 1).

    Raises:
        UserError: unknown name or option, a value out of range, or an ANN without a spiking twin asked to be spiking.
    """
    if name.startswith(PREFIX):
        raise UserError(
            f"'{name}' is a teacher's name in a recipe; make it with timm itself, and spiking with sd.spikify"
        )
    accepted = options_of(name)
    if spiking and name in ANN_ONLY:
        raise UserError(
            f"model {name} is an ANN only; take {ANN_ONLY[name]} as the spiking network and {name} as its teacher"
        )
    for key in options:
        if key not in accepted:
            raise unknown(f"option of model {name}", key, list(accepted))
    for key, value in {"num_classes": num_classes, "in_channels": in_channels, **options}.items():
        _check_option(name, accepted[key], value)
    time = {"timesteps": checked_timesteps(timesteps), "neuron": neuron} if spiking else {}
    own = {key: value for key, value in options.items() if key != OUTPUT.name}
    network = MODELS[name](num_classes=num_classes, in_channels=in_channels, **own, **time)
    if options.get(OUTPUT.name) == "spikes":
        network.fire()
    network.settings = _recipe_section(name, {"num_classes": num_classes, "in_channels": in_channels, **options})
    return network


def _recipe_section(name: str, options: dict[str, int | str]) -> dict[str, object]:
    """What a recipe's section ``student`` says to build this network again."""
    named = ("num_classes", "in_channels", "image_size", "width", "stem")
    section: dict[str, object] = {"model": name, **{key: options[key] for key in named if key in options}}
    return section | {"options": {key: value for key, value in options.items() if key not in named}}


def _check_option(name: str, option: inspect.Parameter, value: object) -> None:
    """Refuses a value of another type than the option's default (without one: whole numbers), or below 1."""
    expected = int if option.default in (inspect.Parameter.empty, None) else type(option.default)
    if type(value) is not expected:
        kind = "a whole number" if expected is int else "a name"
        raise UserError(f"model {name}: {option.name} must be {kind}, not {value!r}")
    if option is OUTPUT and value not in OUTPUTS:
        raise unknown("output", str(value), OUTPUTS)
    least = 0 if option.name == "hidden" else 1
    if isinstance(value, int) and value < least:
        raise UserError(f"model {name}: {option.name} must be at least {least}, not {value}")
