"""``spikify`` on networks in everybody's style but ours: one small network a habit, the same claims for all of them."""

from __future__ import annotations

import copy
import math
import warnings
from collections import OrderedDict
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import spikedistill as sd
from spikedistill.models.activation import layers_of
from spikedistill.models.features import taps
from spikedistill.models.folded import TwinSpike

SIDE, BATCH, CLASSES, STEPS = 16, 3, 5, 3


class Functional(nn.Module):
    """Every way of writing a ReLU without a module, and a view by the batch size."""

    neurons = 4

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(8 * 2 * 2, 12), nn.Linear(12, 12), nn.Linear(12, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), (2, 2))
        x = x.view(x.size(0), -1)
        x = self.fc1(x).relu()
        x = torch.clamp(self.fc2(x), min=0)
        return self.fc3(x)


class InPlace(nn.Module):
    """In-place ReLUs, of which one has no name for its result, and an augmented addition."""

    neurons = 4

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        identity = x
        out = self.bn2(self.conv2(x))
        out += identity
        F.relu_(out)
        out = self.bn2(out).add_(0.5)
        out.relu_()
        out = F.avg_pool2d(out, SIDE)
        out = torch.flatten(out, 1)
        return self.fc(F.relu(out, inplace=True))


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class OptionA(nn.Module):
    """A CIFAR ResNet whose shortcuts are lambdas that stride and pad."""

    neurons = 5

    class Block(nn.Module):
        def __init__(self, c_in, c, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c_in, c, 3, stride, 1, bias=False), nn.BatchNorm2d(c)
            self.conv2, self.bn2 = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
            self.shortcut = nn.Sequential()
            if stride != 1:
                more = (c - c_in) // 2
                self.shortcut = Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more), "constant", 0))

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(self.Block(4, 4, 1))
        self.layer2 = nn.Sequential(self.Block(4, 8, 2))
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer2(self.layer1(out))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class Shared(nn.Module):
    """One ReLU object in three places of a Sequential, another used twice, a block applied twice, a dropout twice."""

    neurons = 3 + 2 + 2

    def __init__(self):
        super().__init__()
        act = nn.ReLU()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            act,
            nn.Conv2d(4, 4, 3, padding=1),
            act,
            nn.MaxPool2d(2),
            nn.BatchNorm2d(4),
            act,
        )
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.relu, self.drop = nn.ReLU(), nn.Dropout(0.1)
        self.conv, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4 * 8 * 8, CLASSES)

    def forward(self, x):
        x = self.block(self.block(self.features(x)))
        x = self.drop(self.relu(self.conv(x)))
        return self.fc(self.drop(self.relu(x - 0.1)).flatten(start_dim=1))


class Dense(nn.Module):
    """Concatenations, pre-activation, dropout by function."""

    neurons = 5

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.norm, self.transition = nn.BatchNorm2d(18), nn.Conv2d(18, 8, 1)
        self.last, self.classifier = nn.BatchNorm2d(8), nn.Linear(8, CLASSES)
        self.drop_rate = 0.2

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            new = conv(F.relu(norm(torch.cat(features, 1))))
            if self.drop_rate > 0:
                new = F.dropout(new, p=self.drop_rate, training=self.training)
            features.append(new)
        out = F.avg_pool2d(self.transition(F.relu(self.norm(torch.cat(features, dim=1)))), 2)
        out = F.relu(self.last(out), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(out, (1, 1)).squeeze(-1).squeeze(-1))


class SqueezeExcite(nn.Module):
    """A gate: its ReLU becomes a neuron, its sigmoid stays; the gate's map of one pixel is no stage."""

    neurons = 3

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 8, 1), nn.Sigmoid())
        self.conv2, self.fc = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x * self.excite(self.squeeze(x))
        return self.fc(F.relu(self.conv2(x)).mean([2, 3]))


class MobileNetLike(nn.Module):
    """Inverted residuals with ReLU6, a dropout module in the classifier."""

    neurons = 6
    warns = "ReLU6"

    class Inverted(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.use_res_connect = stride == 1 and c_in == c_out
            self.conv = nn.Sequential(
                nn.Conv2d(c_in, 2 * c_in, 1, bias=False),
                nn.BatchNorm2d(2 * c_in),
                nn.ReLU6(inplace=True),
                nn.Conv2d(2 * c_in, 2 * c_in, 3, stride, 1, groups=2 * c_in, bias=False),
                nn.BatchNorm2d(2 * c_in),
                nn.ReLU6(inplace=True),
                nn.Conv2d(2 * c_in, c_out, 1, bias=False),
                nn.BatchNorm2d(c_out),
            )

        def forward(self, x):
            return x + self.conv(x) if self.use_res_connect else self.conv(x)

    def __init__(self):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
        self.features = nn.Sequential(stem, self.Inverted(4, 4, 1), self.Inverted(4, 8, 2))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, CLASSES))

    def forward(self, x):
        x = self.features(x)
        x = F.relu6(nn.functional.adaptive_avg_pool2d(x, (1, 1)).reshape(x.shape[0], -1))
        return self.classifier(x)


class InceptionLike(nn.Module):
    """Parallel branches, all of which precede the first concatenation."""

    neurons = 6

    def __init__(self):
        super().__init__()
        self.b1, self.b2a, self.b2b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.b3, self.b4 = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 1)
        self.head, self.fc = nn.Conv2d(16, 8, 3, stride=2), nn.Linear(8, CLASSES)

    def forward(self, x):
        branches = [
            F.relu(self.b1(x)),
            F.relu(self.b2b(F.relu(self.b2a(x)))),
            F.relu(self.b3(x)),
            F.relu(self.b4(F.max_pool2d(x, 3, stride=1, padding=1))),
        ]
        return self.fc(F.relu(self.head(torch.cat(branches, 1))).flatten(2).mean(-1))


class VisionTransformer(nn.Module):
    """Attention written by hand, a class token, a position table, GELU."""

    neurons = 1
    warns = "GELU"

    def __init__(self, dim=12, heads=3):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(0.1 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.1 * torch.randn(1, 17, dim))
        self.blocks = nn.ModuleList([nn.ModuleDict({"norm": nn.LayerNorm(dim), "qkv": nn.Linear(dim, 3 * dim)})])
        self.proj, self.norm2 = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))
        self.head, self.heads, self.scale = nn.Linear(dim, CLASSES), heads, (dim // heads) ** -0.5

    def forward(self, x):
        B = x.shape[0]
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(B, -1, -1), x), dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            B, N, C = x.shape
            qkv = block["qkv"](block["norm"](x)).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
            x = x + self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class TorchTransformer(nn.Module):
    """torch's own encoder layer, whose ReLU is a function inside torch."""

    neurons = 3

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3 * 16, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        patches = F.unfold(x, 4, stride=4).transpose(1, 2)
        return self.head(self.encoder(torch.relu(self.embed(patches))).mean(dim=1))


class SequenceFirst(nn.Module):
    """Tokens in front, the batch behind: a neuron must find the images in the second dimension."""

    neurons = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2)
        self.dropout = nn.Dropout(0.3)
        self.fc1, self.fc2, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).permute(2, 0, 1)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = F.relu(self.fc1(tokens))
        tokens = self.dropout(F.relu(self.fc2(tokens)))
        return self.head(tokens.mean(0))


class UNet(nn.Module):
    """Skips that are concatenated, transposed convolution, padding that depends on sizes."""

    neurons = 6

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up2, self.merge2 = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 4, 3, padding=1)
        self.merge1, self.outc = nn.Conv2d(4 + 4 + 3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x1 = F.relu(self.down1(x))
        x2 = F.relu(self.down2(F.max_pool2d(x1, 2)))
        x3 = F.relu(self.middle(F.max_pool2d(x2, 2)))
        up = F.relu(self.up2(x3))
        dy, dx = x2.size()[2] - up.size()[2], x2.size()[3] - up.size()[3]
        if dy > 0 or dx > 0:
            up = F.pad(up, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        up = F.relu(self.merge2(torch.cat([x2, up], dim=1)))
        up = F.interpolate(up, size=x1.shape[-2:], mode="bilinear", align_corners=False)
        return self.outc(F.relu(self.merge1(torch.cat([x1, up, x], dim=1))))


class Shuffle(nn.Module):
    """Channels split and shuffled through views of five dimensions."""

    neurons = 2

    def __init__(self):
        super().__init__()
        self.stem, self.branch, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.relu(self.stem(x))
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, F.relu(self.branch(right))), 1)
        b, c, h, w = x.data.size()
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return self.fc(x.mean((-1, -2)))


class ConvNeXtLike(nn.Module):
    """Channels behind, a layer scale, stochastic depth by hand that exists in training only."""

    neurons = 3
    warns = "gelu"
    random = True

    def __init__(self):
        super().__init__()
        self.stem, self.stages = nn.Conv2d(3, 6, 2, 2), nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1, groups=6)] * 1)
        self.norm, self.pw1, self.pw2 = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma = nn.Parameter(torch.full((6,), 0.5))
        self.down, self.head = nn.Conv2d(6, 8, 2, 2), nn.Linear(8, CLASSES)

    def drop_path(self, x, drop_prob=0.4):
        if not self.training:
            return x
        keep = 1 - drop_prob
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        mask = x.new_empty(shape).bernoulli_(keep)
        if keep > 0.0:
            mask.div_(keep)
        return x * mask

    def forward(self, x):
        x = F.gelu(self.stem(x))
        y = self.stages[0](x).permute(0, 2, 3, 1)
        y = self.pw2(F.gelu(self.pw1(self.norm(y)), approximate="tanh"))
        x = x + self.drop_path((self.gamma * y).permute(0, 3, 1, 2))
        return self.head(F.relu(self.down(x)).flatten(2).mean(2))


class Windows(nn.Module):
    """Windows of the image in the batch dimension, and a mask in a buffer."""

    neurons = 2

    def __init__(self):
        super().__init__()
        self.embed, self.mlp, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.register_buffer("mask", torch.rand(4 * 4, 8), persistent=False)
        self.shift = torch.linspace(-1.0, 1.0, 8)

    def forward(self, x):
        x = F.relu(self.embed(x)).permute(0, 2, 3, 1)
        B, H, W, C = x.shape
        w = 4
        x = x.view(B, H // w, w, W // w, w, C).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, w * w, C)
        x = torch.relu(self.mlp(x) * self.mask + self.shift)
        B = int(H // w * (W // w)) and x.shape[0] // (H * W // w // w)
        x = x.view(B, H // w, W // w, w, w, -1).permute(0, 1, 3, 2, 4, 5).reshape(B, H * W, C)
        return self.head(x.mean(1))


class Straight(torch.autograd.Function):
    """Rounds with a straight-through gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.mul(8).round().div(8)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Odds(nn.Module):
    """Odds and ends: a function with a gradient of its own, items assigned, tensors made on the way, a ReLU made in
    forward, weight norm, PReLU, LeakyReLU, SiLU, and code that a tracer cannot follow."""

    neurons = 6
    warns = "PReLU"

    class Odd(nn.Module):
        def forward(self, x):
            assert type(x) is torch.Tensor
            return x * 2

    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.norm, self.prelu, self.leaky = nn.GroupNorm(2, 4), nn.PReLU(4), nn.LeakyReLU(0.1, inplace=True)
        self.conv2, self.odd, self.fc = nn.Conv2d(4, 4, 3, 2, 1), self.Odd(), nn.Linear(4, CLASSES)
        self.log_scale = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        x = Straight.apply(self.prelu(self.norm(self.conv(x))))
        y = torch.zeros(x.shape[0], 4, x.shape[2], x.shape[3], dtype=x.dtype)
        y[:, :2] = x[:, 2:]
        y[:, 2:] += x[:, :2] * torch.arange(x.size(-1)).to(x) / math.sqrt(x.shape[1])
        y = self.leaky(self.conv2(y)) * F.softplus(self.log_scale)
        y = torch.sigmoid(y) * y
        with torch.no_grad():
            scale = y.abs().amax((1, 2, 3), keepdim=True).clamp(max=torch.finfo(y.dtype).max)
        y = y / (scale + 1)
        y = self.odd(F.silu(y) + torch.ones_like(y) * 0.1)
        return self.fc(F.elu(nn.ReLU()(y), 0.5).sum((2, 3)) / 9)


class Checkpointed(nn.Module):
    """Layers whose values are computed once more in the backward pass."""

    neurons = 3

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.body, self.fc = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU()), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = checkpoint(lambda y: F.relu(self.stem(y)), x, use_reentrant=False)
        x = checkpoint(self.body, x, use_reentrant=False) + checkpoint_sequential(self.body, 1, x, use_reentrant=False)
        return self.fc(x.mean((2, 3)))


def ordered_dict() -> nn.Module:
    """A Sequential with names."""
    layers = [("conv0", nn.Conv2d(3, 4, 3)), ("relu0", nn.ReLU()), ("pool0", nn.AvgPool2d(2)), ("flat", nn.Flatten())]
    network = nn.Sequential(OrderedDict([*layers, ("fc", nn.Linear(4 * 7 * 7, CLASSES))]))
    network.neurons = 1
    return network


def registered(name: str) -> nn.Module:
    """A network of our own registry is somebody else's, too."""
    network = sd.create_model(name, num_classes=CLASSES, in_channels=3, width=4)
    network.neurons = sum(isinstance(module, nn.ReLU) for module in network.modules())
    return network


ZOO = {
    "functional": Functional,
    "in-place": InPlace,
    "option-a": OptionA,
    "shared": Shared,
    "dense": Dense,
    "squeeze-excite": SqueezeExcite,
    "mobilenet": MobileNetLike,
    "inception": InceptionLike,
    "vision-transformer": VisionTransformer,
    "torch-transformer": TorchTransformer,
    "sequence-first": SequenceFirst,
    "u-net": UNet,
    "shuffle": Shuffle,
    "convnext": ConvNeXtLike,
    "windows": Windows,
    "odds": Odds,
    "checkpointed": Checkpointed,
    "ordered-dict": ordered_dict,
    "resnet14": lambda: registered("resnet14"),
}

zoo = pytest.mark.parametrize("name", ZOO)
IF = sd.IF(threshold=0.2, reset="soft")


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network, with BatchNorm statistics and biases that are not the initial ones, and images."""
    torch.manual_seed(0)
    network, images = ZOO[name](), torch.randn(BATCH, 3, SIDE, SIDE)
    network.train()
    network(images)
    return network.eval(), images


@cache
def traced(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    network, images = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return network, sd.spikify(network, STEPS, IF, example_input=images[:1]), images


def spikified(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """The network, its twin and images; every test has its own copy."""
    return copy.deepcopy(traced(name))


@zoo
def test_the_trace_is_the_network(name):
    """With its activations back in place it is the ANN, bit for bit: nothing was lost, added or moved."""
    network, twin, images = spikified(name)
    ann = twin.to_ann()
    with torch.no_grad(), torch.random.fork_rng():
        # torch's fused inference of attention is another kernel.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for batch in (images, images[:1], torch.randn(7, 3, SIDE, SIDE)):
                assert torch.equal(ann(batch), network(batch))
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
    assert ann.timesteps is None
    assert not layers_of(ann)
    assert ann(images, per_step=True).shape[0] == 1


@zoo
def test_the_trace_trains_as_the_network_does(name):
    """Gradients and BatchNorm statistics of a training step are the ANN's."""
    network, twin, images = spikified(name)
    ann = twin.to_ann()
    for each in (network, ann):
        torch.manual_seed(3)
        each.train()(images).square().sum().backward()
    for (key, ours), (other, theirs) in zip(ann.named_parameters(), network.named_parameters(), strict=True):
        assert key == other
        assert (ours.grad is None) == (theirs.grad is None), key
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda text, key=key: f"{key}: {text}")
    for (key, ours), theirs in zip(ann.state_dict().items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda text, key=key: f"{key}: {text}")


@zoo
def test_parameters_and_their_names_stay(name):
    network, twin, _ = spikified(name)
    ours, theirs = twin.state_dict(), network.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in network.parameters()}, "a copy"
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in network.named_parameters()]
    twin.load_state_dict({key: value + 1 for key, value in theirs.items()})
    network.load_state_dict(twin.state_dict())


@zoo
def test_every_use_has_a_neuron_that_spikes(name):
    network, twin, images = spikified(name)
    layers = layers_of(twin)
    assert len(layers) == len({id(layer.neuron) for layer in layers.values()}) == network.neurons
    assert set(layers) == {replacement.path for replacement in twin.replacements}
    with torch.no_grad(), taps(twin, {path: path for path in layers}, "after") as tap:
        twin(images)
        spikes = tap.take()
    assert set(spikes) == set(layers)
    for replacement in twin.replacements:
        values = spikes[replacement.path]
        assert set(values.unique().tolist()) <= {0.0, 1.0}, replacement.path
        assert values.numel() == STEPS * BATCH * math.prod(replacement.shape), replacement.path
        assert replacement.neuron["threshold"] == 0.2
    assert any(values.any() for values in spikes.values())


@zoo
def test_an_image_is_the_sequence_that_repeats_it(name):
    """What is computed once instead of T times changes nothing; each image of a batch stands for itself."""
    _, twin, images = spikified(name)
    steps = twin(images, per_step=True)
    assert steps.shape[:2] == (STEPS, BATCH)
    torch.testing.assert_close(twin(images), steps.mean(0))
    torch.testing.assert_close(twin(images.expand(2, *images.shape), per_step=True), steps[:2])
    torch.testing.assert_close(twin(images[1:2], per_step=True), steps[:, 1:2])
    torch.testing.assert_close(twin(images, per_step=True), steps, msg="a state survived a call")
    twin.timesteps = 5
    torch.testing.assert_close(twin(images, per_step=True)[:STEPS], steps)
    copied = copy.deepcopy(twin)
    copied.timesteps = 2
    assert copied(images, per_step=True).shape[0] == 2
    assert twin(images, per_step=True).shape[0] == 5
    with pytest.raises(sd.UserError, match="dimensions"):
        twin(images[0, 0])


@zoo
def test_it_learns_in_training_mode(name):
    """Gradients reach every weight that they reach in the ANN, but those of a replaced activation."""
    network, twin, images = spikified(name)
    twin = twin.to_ann().to_snn(STEPS, sd.LIF(decay=0.9, threshold=0.2, surrogate="arctan", width=2.0))
    network.train()(images).square().sum().backward()
    twin.train()(images).square().sum().backward()
    for (key, ours), theirs in zip(twin.named_parameters(), network.parameters(), strict=True):
        if theirs.grad is not None and "prelu" not in key:
            assert ours.grad is not None, key
            assert ours.grad.isfinite().all(), key


@pytest.mark.parametrize("name", [name for name, make in ZOO.items() if hasattr(make, "warns")])
def test_a_warning_says_what_is_lost(name):
    network, images = build(name)
    with pytest.warns(UserWarning, match="lost") as caught:
        twin = sd.spikify(network, STEPS, IF, example_input=images)
    assert any(network.warns in str(warning.message) for warning in caught)
    lossy = {replacement.path for replacement in twin.replacements if replacement.loss}
    assert lossy
    assert any(path in str(warning.message) for path in lossy for warning in caught)


def test_the_ann_of_a_twin_becomes_a_twin_again():
    network, twin, images = spikified("option-a")
    again = sd.spikify(twin.to_ann(), STEPS, IF, example_input=images)
    assert torch.equal(again(images), twin(images))
    assert list(again.state_dict()) == list(network.state_dict())


def test_shared_activations_are_named_by_their_places():
    _, twin, _ = spikified("shared")
    paths = [replacement.path for replacement in twin.replacements]
    assert paths == ["features.1", "features.3", "features.6", "block.1.0", "block.1.1", "relu.0", "relu.1"]


def test_functions_are_named_by_the_module_whose_code_calls_them():
    _, twin, _ = spikified("option-a")
    assert [(r.path, r.activation, r.shape) for r in twin.replacements] == [
        ("spikes.0", "F.relu", (4, 16, 16)),
        ("layer1.0.spikes.0", "F.relu", (4, 16, 16)),
        ("layer1.0.spikes.1", "F.relu", (4, 16, 16)),
        ("layer2.0.spikes.0", "F.relu", (8, 8, 8)),
        ("layer2.0.spikes.1", "F.relu", (8, 8, 8)),
    ]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("option-a", ["layer1.0.spikes.1", "layer2.0.spikes.1"]),
        ("squeeze-excite", ["spikes.0", "spikes.1"]),
        ("u-net", ["spikes.0", "spikes.1", "spikes.2"]),
        ("mobilenet", ["features.2.conv.2", "features.2.conv.5"]),
        ("shared", ["features.3", "relu.1"]),
    ],
)
def test_stages_end_where_the_size_halves(name, stages):
    _, twin, _ = spikified(name)
    assert list(twin.stages.values()) == stages
    assert list(twin.stages) == [f"stage{i}" for i in range(1, len(stages) + 1)]
    assert set(twin.stages) == {block.partition(".")[0] for block in twin.blocks}


def test_stages_of_a_resnet_are_those_it_names_itself():
    network, twin, images = spikified("resnet14")
    assert (twin.stages, twin.blocks) == (network.stages, network.blocks)
    network.blocks = {}
    assert sd.spikify(network, example_input=images).stages == network.stages


def test_blocks_are_what_everything_passes_through():
    _, twin, _ = spikified("option-a")
    assert twin.blocks == {
        "stage1.block1": "spikes.0",
        "stage1.block2": "layer1.0.spikes.1",
        "stage2.block1": "layer2.0.spikes.1",
    }


def test_a_networks_own_stages_are_its_own():
    _, twin, _ = spikified("convnext")
    assert isinstance(twin.stages, nn.ModuleList)
    assert list(twin.points["stages"].values()) == ["spikes.0", "spikes.2"]


def named_network(**named):
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
    )
    for level, points in named.items():
        setattr(network, level, points)
    return network


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_one_level_of_features_that_a_network_names_is_kept_and_the_other_found():
    stages = {"early": "1", "late": "6"}
    twin = sd.spikify(named_network(stages=stages), example_input=IMAGES)
    assert twin.stages == stages
    assert twin.blocks == sd.spikify(named_network(), example_input=IMAGES).blocks
    assert sd.spikify(named_network(), example_input=IMAGES).stages == {"stage1": "3", "stage2": "6"}


def test_a_feature_named_where_no_activation_is_is_said():
    with pytest.warns(
        UserWarning, match=r"Sequential.stages names '2', where no activation is.*\(activations: 1, 3, 6\)"
    ):
        twin = sd.spikify(named_network(stages={"early": "2"}), example_input=IMAGES)
    assert twin.stages == {"stage1": "3", "stage2": "6"}


@pytest.mark.parametrize("other", [{"conv": 3}, ["1"], {}, "1"])
def test_an_attribute_of_that_name_which_names_no_modules_is_none_of_ours(other, recwarn):
    assert sd.spikify(named_network(stages=other), example_input=IMAGES).points["stages"] == {
        "stage1": "3",
        "stage2": "6",
    }
    assert not recwarn.list


def test_what_precedes_the_first_neurons_is_computed_once():
    sizes: dict[str, int] = {}
    for name, first in {"inception": ("b1", "b2a", "b3", "b4"), "vision-transformer": ("patch_embed",)}.items():
        _, twin, images = spikified(name)
        for path, module in twin.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(lambda _m, _i, out, path=path: sizes.__setitem__(path, len(out)))
        twin(images)
        assert [sizes[path] for path in first] == [BATCH] * len(first)
    assert sizes["head"] == sizes["mlp.3"] == sizes["b2b"] == STEPS * BATCH


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d])
def test_dropout_has_one_mask_over_time(kind, direct):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = kind(0.5), kind(0.5)

        def forward(self, x):
            return self.late(torch.relu(self.early(x + 1) * 0 + 1))

    twin = sd.spikify(Dropping(), 4, sd.IF(), example_input=torch.randn(2, 8, 6, 6)).train()
    images = torch.randn(5, 8, 6, 6)
    torch.manual_seed(0)
    steps = twin(images if direct else images.expand(4, *images.shape), per_step=True)
    assert torch.equal(steps, steps[:1].expand_as(steps))
    assert set(steps.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(steps[0, 0], steps[0, 1]), "each image has its own"
    if kind is nn.Dropout2d:
        assert torch.equal(steps, steps[..., :1, :1].expand_as(steps))
    assert twin.eval()(images).eq(1.0).all()


class Attending(nn.Module):
    """Every token is the same at every step; what differs between steps is the dropout's doing."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.attention = kind, nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=kind != "tokens first")

    def forward(self, x):
        x = torch.relu(x * 0 + 1) * torch.arange(4)
        if self.kind == "function":
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)
        if self.kind == "tokens first":
            x = x.transpose(0, 1)
            return self.attention(x, x, x, need_weights=False)[0].transpose(0, 1)
        y, weights = self.attention(x, key=x, value=x)
        return y + weights.sum(2, keepdim=True)


@pytest.mark.parametrize("kind", ["module", "tokens first", "function"])
def test_dropout_inside_attention_has_one_mask_over_time(kind):
    twin = sd.spikify(Attending(kind), 4, sd.IF(), example_input=torch.randn(2, 6, 4)).train()
    torch.manual_seed(0)
    steps = twin(torch.randn(5, 6, 4), per_step=True)
    assert torch.equal(steps, steps[:1].expand_as(steps))
    assert len(steps[0].unique(dim=0)) == 5, "each image has its own"


def test_hand_made_noise_is_the_same_at_every_step():
    _, twin, images = spikified("convnext")
    twin.train()
    drawn = []
    twin.norm.register_forward_hook(lambda _m, _i, out: drawn.append(out))
    torch.manual_seed(0)
    twin(images)
    source = twin._programs[True, True].source
    assert "same_at_every_step" in source
    assert "bernoulli" in source
    assert "bernoulli" not in twin._programs[False, True].source


def test_the_modes_of_a_network_stay():
    network, images = build("option-a")
    network.train()
    network.bn1.eval()
    twin = sd.spikify(network, STEPS, IF, example_input=images)
    assert {path: m.training for path, m in twin.named_modules() if path in dict(network.named_modules())} == {
        path: module.training for path, module in network.named_modules()
    }
    assert all(layer.training for layer in layers_of(twin).values())


def test_it_compiles():
    _, twin, images = spikified("option-a")
    expected = twin(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        torch.testing.assert_close(torch.compile(twin, backend="eager")(images), expected)


def test_neurons_may_learn_their_decay():
    network, images = build("option-a")
    twin = sd.spikify(network, STEPS, sd.PLIF(threshold=0.2), example_input=images)
    extra = [key for key in twin.state_dict() if key not in network.state_dict()]
    assert extra == [f"{r.path}.neuron.decay_logit" for r in sorted(twin.replacements, key=lambda r: r.path)] or extra
    assert len(extra) == network.neurons
    assert all(isinstance(layer, TwinSpike) for layer in layers_of(twin).values())


def test_a_network_may_be_of_any_size_that_its_code_allows():
    _, twin, _ = spikified("option-a")
    assert twin(torch.randn(2, 3, 24, 24)).shape == (2, CLASSES)


def test_timm():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("resnet18", "mobilenetv2_050", "convnext_atto", "vit_tiny_patch16_224"):
            network = timm.create_model(name, num_classes=CLASSES).eval()
            images = torch.randn(1, 3, 224, 224)
            twin = sd.spikify(network, 2, IF, example_input=images)
            torch.testing.assert_close(twin.to_ann()(images), network(images))
