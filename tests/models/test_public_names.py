"""ResNets with the ImageNet stem have the keys and shapes under which public weights are stored.

The table is written from the published architecture, not from the code under test.
"""

from __future__ import annotations

import pytest
import torch

from spikedistill import create_model

Shapes = dict[str, tuple[int, ...]]

# name: blocks a stage, kernel sizes in a block, channels out of a block in units of its planes
LAYOUTS = {
    "resnet18": ((2, 2, 2, 2), (3, 3), 1),
    "resnet34": ((3, 4, 6, 3), (3, 3), 1),
    "resnet50": ((3, 4, 6, 3), (1, 3, 1), 4),
}
PLANES = (64, 128, 256, 512)


def conv_and_norm(conv: str, norm: str, c_out: int, c_in: int, kernel: int) -> Shapes:
    return {
        f"{conv}.weight": (c_out, c_in, kernel, kernel),
        f"{norm}.weight": (c_out,),
        f"{norm}.bias": (c_out,),
        f"{norm}.running_mean": (c_out,),
        f"{norm}.running_var": (c_out,),
        f"{norm}.num_batches_tracked": (),
    }


def published(name: str) -> Shapes:
    depths, kernels, factor = LAYOUTS[name]
    shapes = conv_and_norm("conv1", "bn1", 64, 3, 7)
    c = 64
    for stage, (depth, planes) in enumerate(zip(depths, PLANES, strict=True), 1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            out = planes * factor
            widths = [c, *[planes] * (len(kernels) - 1), out]
            for i, kernel in enumerate(kernels, 1):
                shapes |= conv_and_norm(f"{prefix}.conv{i}", f"{prefix}.bn{i}", widths[i], widths[i - 1], kernel)
            if block == 0 and (stage > 1 or factor > 1):
                shapes |= conv_and_norm(f"{prefix}.downsample.0", f"{prefix}.downsample.1", out, c, 1)
            c = out
    return shapes | {"fc.weight": (1000, c), "fc.bias": (1000,)}


@pytest.mark.parametrize("spiking", [False, True], ids=["ann", "snn"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_keys_and_shapes(name, spiking):
    with torch.device("meta"):
        network = create_model(name, num_classes=1000, in_channels=3, stem="imagenet", spiking=spiking)
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert list(ours) == list(published(name)), "the order is the usual one too"
    assert ours == published(name)


def test_the_table_itself():
    """Landmarks that anybody who has opened a public ResNet-50 file will know."""
    shapes = published("resnet50")
    assert len(shapes) == 320
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["fc.weight"] == (1000, 2048)
    assert len(published("resnet18")) == 122
    assert len(published("resnet34")) == 218


def test_the_stem_and_the_strides_are_imagenets():
    with torch.device("meta"):
        network = create_model("resnet50", num_classes=1000, in_channels=3, stem="imagenet").eval()
        sides = {}
        for stage in (1, 2, 3, 4):
            network.get_submodule(f"layer{stage}").register_forward_hook(
                lambda _module, _inputs, output, stage=stage: sides.__setitem__(stage, tuple(output.shape[1:]))
            )
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert sides == {1: (256, 56, 56), 2: (512, 28, 28), 3: (1024, 14, 14), 4: (2048, 7, 7)}
    assert network.layer2[0].conv1.stride == (1, 1)
    assert network.layer2[0].conv2.stride == (2, 2), "in the 3x3, as in the public weights"
