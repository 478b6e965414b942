"""VGGs with the ImageNet stem: what they compute, as ANN and as SNN; their features; public weights.

Keys and shapes are held in ``test_public_names.py``, parameters in ``test_counts.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikedistill import Network, UserError, create_model
from spikedistill.methods import METHODS, Progress
from spikedistill.methods.features import feature_shapes
from spikedistill.models.activation import layers_of
from spikedistill.runfolder import load_state, read_state

VGGS = ("vgg11", "vgg13", "vgg16")
EVERY = pytest.mark.parametrize("name", VGGS)
# The published columns A, B and D: channels of the convolutions, M for max pooling.
COLUMNS = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
}

Build = Callable[..., Network]


@pytest.fixture
def imagenet(small) -> Build:
    """``small`` for the ImageNet stem: VGGs of width 4."""

    def build(name: str, **options) -> Network:
        return small(name, stem="imagenet", image_size=32, **options)

    return build


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Published(nn.Module):
    """The published network at a sixteenth of its width, by torch's layers, with the published keys."""

    def __init__(self, name: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c = 3
        for entry in COLUMNS[name].split():
            if entry == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                out = int(entry) // 16
                layers += [nn.Conv2d(c, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                c = out
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((7, 7))
        head = [nn.Linear(c * 49, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*head, nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


@EVERY
@pytest.mark.parametrize("side", [32, 64, 224])
def test_the_ann_computes_what_the_published_network_computes(name, side, imagenet):
    torch.manual_seed(0)
    theirs, x = Published(name), torch.randn(2, 3, side, side)
    ours = imagenet(name)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    results = []
    for network in (ours, theirs):
        torch.manual_seed(1)  # of dropout
        with torch.no_grad():
            results.append((network.train()(x), network.eval()(x)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(*results[0])


@EVERY
@pytest.mark.parametrize("spiking", [False, True], ids=["ann", "snn"])
def test_trains(name, spiking, imagenet, pictures):
    network = imagenet(name, spiking=spiking)
    logits = network(pictures)
    assert logits.shape == (6, 10)
    functional.cross_entropy(logits, torch.arange(6)).backward()
    before_norm = {f"{path}.bias" for path, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # BatchNorm takes a convolution's bias out again: its gradient is rounding.
        assert key in before_norm or parameter.grad.abs().sum() > 0, key


@EVERY
def test_twins_share_keys_and_shapes(name, imagenet, pictures):
    ann, snn = imagenet(name), imagenet(name, spiking=True)
    ann(pictures)
    ours, twins = ann.state_dict(), snn.state_dict()
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in twins.items()]
    snn.load_state_dict(ours, strict=True)
    assert len(layers_of(snn)) == sum(isinstance(module, nn.ReLU) for module in ann.modules())
    steps = snn.eval()(pictures, per_step=True)
    assert steps.shape == (2, 6, 10)
    torch.testing.assert_close(steps.mean(0), snn(pictures))
    snn.timesteps = 3
    torch.testing.assert_close(snn(pictures, per_step=True)[:2], steps)


def test_a_dropout_of_an_snn_has_one_mask_over_time(imagenet):
    snn = imagenet("vgg11", spiking=True, timesteps=3).train()
    seen: dict[int, Tensor] = {}
    for i in (1, 2, 4, 5):
        snn.classifier[i].register_forward_hook(lambda _module, _inputs, output, i=i: seen.__setitem__(i, output))
    x = 3 * torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for timesteps in (3, 4):
        snn.timesteps = timesteps
        snn(x)
        for before, after in ((1, 2), (4, 5)):
            spikes, kept = (seen[i].unflatten(0, (timesteps, -1)) for i in (before, after))
            assert set(kept.unique().tolist()) == {0.0, 2.0}, "what is left is doubled, as half of it is dropped"
            fired = spikes.sum(0) > 0
            assert torch.equal(kept.sum(0) > 0, (kept.sum(0) == 2 * spikes.sum(0)) & fired), "at every step or at none"
            share = float((kept.sum(0) > 0)[fired].float().mean())
            assert 0.4 < share < 0.6
            assert not torch.equal(kept.sum(0)[0] > 0, kept.sum(0)[1] > 0), "each image has its own"
    snn.eval()(x)
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[4], seen[5])


@EVERY
def test_features_are_the_stages_maps(name, imagenet, pictures):
    snn = imagenet(name, spiking=True)
    channels = [int(column.split()[-1]) // 16 for column in COLUMNS[name].split("M")[:-1]]
    expected = {f"stage{i + 1}": (6, c, 32 >> i, 32 >> i) for i, c in enumerate(channels)}
    for side in ("before", "after"):
        shapes = feature_shapes(snn, snn.stages, side, pictures)
        assert {stage: tuple(shape) for stage, shape in shapes.items()} == expected
    assert len(snn.blocks) == sum(entry != "M" for entry in COLUMNS[name].split())


@pytest.mark.parametrize("name", ["kdsnn-feature", "sakd", "joint-asnn"])
def test_methods_compare_its_features(name, imagenet, pictures):
    student, teacher = imagenet("vgg11", spiking=True).train(), imagenet("vgg11")
    method = METHODS[name](student, teacher, METHODS[name].Settings(), pictures)
    _, losses = method(pictures, torch.arange(6), Progress(0, 2))
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    if name != "joint-asnn":
        assert {key for key in losses if "/" in key} >= {f"feature/stage{i}" for i in range(1, 6)}
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_public_files_do_not_count_batches(suffix, imagenet, tmp_path: Path):
    """Torchvision's files of VGGs with BatchNorm are older than ``num_batches_tracked``."""
    source, network = imagenet("vgg11"), imagenet("vgg11", spiking=True)
    with torch.no_grad():
        for value in source.state_dict().values():
            value.copy_(torch.rand(value.shape) if value.is_floating_point() else torch.ones_like(value))
    state = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    file = tmp_path / f"vgg11_bn{suffix}"
    if suffix == ".pth":
        torch.save(state, file, _use_new_zipfile_serialization=False)  # as of that time
    else:
        from safetensors.torch import save_file

        save_file(state, file)
    load_state(network, read_state(file), f"'{file}'")
    for key, value in network.state_dict().items():
        assert torch.equal(value, state.get(key, torch.tensor(0))), key
    del state["features.1.running_var"]
    with pytest.raises(UserError, match=r"has no tensor 'features\.1\.running_var'"):
        load_state(network, state, "the file")


def test_images_that_cannot_be_pooled_five_times_are_refused(imagenet, pictures):
    network = imagenet("vgg11")
    assert network(torch.zeros(2, 3, 40, 52)).shape == (2, 10), "others of any size and shape are taken"
    with pytest.raises(UserError, match="at least 32x32 pixels, not 31"):
        network(pictures[..., :31, :])


def test_the_hidden_layers_width_is_the_stems(small, imagenet):
    def widths(network: Network) -> list[int]:
        return [module.out_features for module in network.modules() if isinstance(module, nn.Linear)]

    assert widths(imagenet("vgg11", width=8)) == [512, 512, 10]
    assert widths(imagenet("vgg11", width=8, hidden=64)) == [8, 8, 10]
    assert widths(imagenet("vgg11", hidden=0)) == [10]
    assert widths(small("vgg11", width=8)) == [64, 64, 10]


def test_hidden_layers_do_not_vanish_with_the_width() -> None:
    wide, none = (
        create_model("vgg11", num_classes=5, in_channels=1, width=8, image_size=32, hidden=hidden) for hidden in (4, 0)
    )
    assert sum(isinstance(layer, nn.Linear) for layer in wide.classifier) == 3
    assert sum(isinstance(layer, nn.Linear) for layer in none.classifier) == 1
