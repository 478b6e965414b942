"""The ordinary Vision Transformer: its block is torch's, its features have the names of the network that it teaches."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from spikedistill import UserError, create_model
from spikedistill.models.features import taps
from spikedistill.models.vit import EncoderBlock

# In EncoderBlock and in nn.TransformerEncoderLayer; what both call alike stands twice.
NAMES = {"attention": "self_attn", "norm1": "norm1", "norm2": "norm2", "fc1": "linear1", "fc2": "linear2"}


def shaken(network: nn.Module) -> nn.Module:
    """No parameter is at a value that would hide it, such as a bias of zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def of_torch(block: EncoderBlock, width: int, heads: int) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    state = block.state_dict()
    layer.load_state_dict({NAMES[key.split(".")[0]] + key[key.index(".") :]: value for key, value in state.items()})
    return layer


def test_a_block_is_torchs_pre_norm_encoder_layer_forward_and_backward():
    torch.manual_seed(0)
    width, heads, height, breadth = 24, 3, 3, 5
    block = shaken(EncoderBlock(width, heads))
    layer = of_torch(block, width, heads)
    x = torch.randn(4, width, height, breadth, requires_grad=True)
    tokens = x.detach().permute(0, 2, 3, 1).reshape(4, height * breadth, width).requires_grad_()
    ours, theirs = block(x), layer(tokens)
    assert ours.shape == x.shape
    torch.testing.assert_close(ours.permute(0, 2, 3, 1).reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(theirs)
    (theirs * weights).sum().backward()
    (ours * weights.reshape(4, height, breadth, width).permute(0, 3, 1, 2)).sum().backward()
    assert x.grad is not None and tokens.grad is not None
    torch.testing.assert_close(x.grad.permute(0, 2, 3, 1).reshape(tokens.shape), tokens.grad, rtol=1e-4, atol=1e-4)
    ours_by_name = dict(block.named_parameters())
    for key, parameter in layer.named_parameters():
        mine = next(name for name, torchs in NAMES.items() if key.startswith(f"{torchs}."))
        torch.testing.assert_close(
            ours_by_name[mine + key[key.index(".") :]].grad, parameter.grad, rtol=1e-4, atol=1e-4, msg=key
        )


def test_the_network_is_patches_positions_torchs_encoder_and_a_mean_over_tokens(small, images):
    """Written again from torch's own parts, patch by patch."""
    vit = shaken(small("vit-tiny", width=8)).eval()
    width, heads, patch, side = 8, 2, 4, 4
    with torch.no_grad():
        rows = []
        for i in range(side):
            for j in range(side):
                pixels = images[:, :, patch * i : patch * (i + 1), patch * j : patch * (j + 1)].flatten(1)
                token = pixels @ vit.embed.weight.flatten(1).T + vit.embed.bias
                rows.append(token + vit.position[:, i, j])
        tokens = torch.stack(rows, 1)
        for block in vit.encoders:
            tokens = of_torch(block, width, heads)(tokens)
        expected = vit.fc(vit.norm(tokens).mean(1))
        torch.testing.assert_close(vit(images), expected, rtol=1e-5, atol=1e-5)
        # Without positions the patches could be in any order.
        shuffled = images.unflatten(3, (side, patch)).flip(3).flatten(3)
        assert not torch.allclose(vit(shuffled), vit(images), atol=0.01)
        vit.position.zero_()
        torch.testing.assert_close(vit(shuffled), vit(images), rtol=1e-4, atol=1e-5)


def test_its_parameters_are_deit_tinys_without_the_class_token():
    """Touvron et al. 2021, table 1: 5M; in their code 5,717,416, with a class token and its position."""
    with torch.device("meta"):
        network = create_model("vit-tiny", num_classes=1000, in_channels=3, image_size=224, patch=16, stages=5)
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_717_416 - 2 * 192


@pytest.mark.parametrize(
    ("stem", "depth", "shape"),
    [("cifar", 12, {"image_size": 32, "patch": 4, "stages": 3}), ("imagenet", 7, {"patch": 16, "stages": 5})],
)
def test_its_stages_are_called_as_spikformers_and_have_maps_of_the_tokens(stem, depth, shape):
    side = 32 if stem == "cifar" else 64
    vit = create_model(
        "vit-tiny", num_classes=2, in_channels=1, width=8, depth=depth, **({"image_size": side} | shape)
    ).eval()
    student = create_model("spikformer-tiny", num_classes=2, in_channels=1, width=16, depth=1, heads=2, stem=stem)
    images = torch.randn(2, 1, side, side)
    assert list(vit.stages) == list(student.stages)
    with torch.no_grad(), taps(vit, vit.stages, "after") as ours, taps(student, student.stages, "after") as theirs:
        vit(images), student(images)
        ours, theirs = ours.take(), theirs.take()
    tokens = theirs[list(student.stages)[-1]].shape[-2:]
    assert {tuple(value.shape) for value in ours.values()} == {(2, 8, *tokens)}
    ends = list(vit.blocks.values())
    assert ends == [f"encoders.{i}.feature" for i in range(depth)], "every block once, in order"
    sizes = [sum(name.startswith(f"{stage}.") for name in vit.blocks) for stage in vit.stages]
    assert max(sizes) - min(sizes) <= 1, "shared out evenly"
    maps = [ours[stage] for stage in vit.stages]
    assert not any(torch.allclose(a, b) for a, b in pairwise(maps))


def test_a_feature_is_the_residual_stream_on_its_grid(small):
    """Of a network whose blocks add nothing, a feature is the patch embedding with its positions, pixel for pixel."""
    vit = small("vit-tiny", width=8)
    for block in vit.encoders:
        nn.init.zeros_(block.attention.out_proj.weight)
        nn.init.zeros_(block.fc2.weight)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad(), taps(vit, vit.stages, "before") as tap:
        vit(images)
        for value in tap.take().values():
            torch.testing.assert_close(value, vit.embed(images) + vit.position)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 18}, "vit's width must be a multiple of its 4 heads, not 18"),
        ({"image_size": 30}, "vit cuts images into patches of 4x4 pixels, which 30 cannot be"),
        ({"image_size": 2, "patch": 4}, "vit cuts images into patches of 4x4 pixels, which 2 cannot be"),
        ({"depth": 2}, "vit shares its blocks out over 3 stages and needs as many, not 2"),
        ({"stem": "cifar"}, "unknown option of model vit-tiny 'stem'"),
        ({"timesteps": 2, "spiking": True}, "model vit-tiny is an ANN only; take spikformer-tiny"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message):
        create_model("vit-tiny", num_classes=2, in_channels=1, **options)
