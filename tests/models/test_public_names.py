"""ResNets and VGGs with the ImageNet stem have the keys and shapes under which public weights are stored.

The tables are written from the published architectures, not from the code under test.
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

# name: number in ``features`` and channels of each convolution; torchvision's ``vgg11_bn``, ``vgg13_bn``, ``vgg16_bn``
CONVOLUTIONS = {
    "vgg11": {0: 64, 4: 128, 8: 256, 11: 256, 15: 512, 18: 512, 22: 512, 25: 512},
    "vgg13": {0: 64, 3: 64, 7: 128, 10: 128, 14: 256, 17: 256, 21: 512, 24: 512, 28: 512, 31: 512},
    "vgg16": {0: 64, 3: 64, 7: 128, 10: 128, 14: 256, 17: 256, 20: 256, 24: 512, 27: 512, 30: 512}
    | {34: 512, 37: 512, 40: 512},
}


def conv_and_norm(conv: str, norm: str, c_out: int, c_in: int, kernel: int) -> Shapes:
    return {
        f"{conv}.weight": (c_out, c_in, kernel, kernel),
        f"{norm}.weight": (c_out,),
        f"{norm}.bias": (c_out,),
        f"{norm}.running_mean": (c_out,),
        f"{norm}.running_var": (c_out,),
        f"{norm}.num_batches_tracked": (),
    }


def published_vgg(name: str) -> Shapes:
    shapes: Shapes = {}
    c = 3
    for i, out in CONVOLUTIONS[name].items():
        layer = conv_and_norm(f"features.{i}", f"features.{i + 1}", out, c, 3)
        weight = f"features.{i}.weight"
        shapes |= {weight: layer.pop(weight), f"features.{i}.bias": (out,), **layer}
        c = out
    for i, size in {0: (4096, 512 * 7 * 7), 3: (4096, 4096), 6: (1000, 4096)}.items():
        shapes |= {f"classifier.{i}.weight": size, f"classifier.{i}.bias": size[:1]}
    return shapes


def published(name: str) -> Shapes:
    if name in CONVOLUTIONS:
        return published_vgg(name)
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
@pytest.mark.parametrize("name", [*LAYOUTS, *CONVOLUTIONS])
def test_keys_and_shapes(name, spiking):
    with torch.device("meta"):
        network = create_model(name, num_classes=1000, in_channels=3, stem="imagenet", spiking=spiking)
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert list(ours) == list(published(name)), "the order is the usual one too"
    assert ours == published(name)


def test_the_table_itself():
    """Landmarks that anybody who has opened a public ResNet-50 or VGG-16 file will know."""
    shapes = published("resnet50")
    assert len(shapes) == 320
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["fc.weight"] == (1000, 2048)
    assert len(published("resnet18")) == 122
    assert len(published("resnet34")) == 218
    shapes = published("vgg16")
    assert len(shapes) == 13 * 7 + 3 * 2
    assert shapes["features.40.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 25088)


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
