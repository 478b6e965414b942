"""What a network sees: its feature maps, and where it looks (Grad-CAM).

Source: SAKD section 4.5 and figure 4, which show both for an ANN, a plain SNN and a distilled SNN on the same images.
Spikes are averaged over the timesteps, so that one picture stands for one image.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.evaluation.accuracy import inference
from spikedistill.models.features import taps
from spikedistill.models.fuse import restore
from spikedistill.spiking import compiling
from spikedistill.spiking.time import rate


def mean_features(
    network: nn.Module, images: Tensor, points: Mapping[str, str], side: str = "after"
) -> dict[str, Tensor]:
    """Features of some images, averaged over the timesteps.

    Args:
        network: an ANN or SNN; it is left as it is.
        images: ``[B, ...]`` as the network takes them.
        points: name of each feature to the path of the activation.
        side: ``before`` or ``after`` the activation.

    Returns:
        Name to ``[B, ...]``.
    """
    subject = restore(copy.deepcopy(network))
    with inference(subject), compiling.choose("plain"), taps(subject, points, side) as tap:
        subject(images)
        found = tap.take()
    return {name: _batch_first(subject.get_submodule(points[name]), found[name], len(images)) for name in points}


def _batch_first(activation: nn.Module, feature: Tensor, batch: int) -> Tensor:
    """A folded feature ``[T*B, ...]`` (in whichever dimension the batch lies) as its mean over T, ``[B, ...]``."""
    return rate(feature.movedim(getattr(activation, "dim", 0), 0), batch)


def check_captum() -> None:
    """Refuses where captum is missing.

    Raises:
        UserError: says what to install.
    """
    if find_spec("captum") is None:
        raise UserError("Grad-CAM needs captum: pip install 'spikedistill[attribution]'")


def grad_cam(network: nn.Module, images: Tensor, labels: Tensor, path: str) -> Tensor:
    """Where the evidence for a class lies (Grad-CAM, Selvaraju et al. 2017), by captum.

    In an SNN gradients go through the surrogate, and the maps of the timesteps are averaged.

    Args:
        network: an ANN or SNN; it is left as it is.
        images: ``[B, C, H, W]``.
        labels: ``[B]``, the class to look for in each image.
        path: of the activation whose output is weighted; it must have a map.

    Returns:
        ``[B, H, W]`` in [0, 1], the largest value of each map being 1 (a map without any evidence is 0).

    Raises:
        UserError: captum is not installed, or no map there.
    """
    check_captum()
    from captum.attr import LayerAttribution, LayerGradCam

    subject = restore(copy.deepcopy(network)).eval().requires_grad_(True)
    layer = subject.get_submodule(path)
    with torch.enable_grad(), compiling.choose("plain"):
        # The copy's weights are asked for gradients so that there is something to differentiate; none is changed.
        found = LayerGradCam(subject, layer).attribute(images, labels, relu_attributions=True)
    assert isinstance(found, Tensor)
    if found.dim() != 4:
        raise UserError(f"Grad-CAM needs a layer with maps; '{path}' gives a tensor of {found.dim()} dimensions")
    cam = LayerAttribution.interpolate(
        _batch_first(layer, found.detach(), len(images)), tuple(images.shape[-2:]), "bilinear"
    )
    cam = cam[:, 0].clamp_min(0.0)
    return cam / cam.amax((-2, -1), keepdim=True).clamp_min(1e-12)
