"""A spiking transformer and, from the same class, its ordinary twin (Zhou et al. 2023, "Spikformer").

Convolutions with pooling split the image into patches, then encoder blocks of self-attention without softmax and a
two-layer perceptron. Tokens stay on their grid, ``[N, C, H, W]``, so that linear layers are 1x1 convolutions, BatchNorm
is two-dimensional, and every feature has a map.

``spikformer-tiny`` is the paper's smallest network on CIFAR, Spikformer-4-256 (4.15M parameters).

Attention is ``q (k^T v)``, linear in the number of tokens. In the SNN q, k and v are spikes; in the ANN they are behind
a ReLU. Either way no weight is negative: the result is a sum of values weighted by similarity, and needs no softmax.

Deviations: the paper scales attention by 0.125 and halves the threshold of the activation behind it, which suits
neurons that halve their input; at the firing rates of this project's LIF that activation would always fire. Here
attention is the mean over tokens and a BatchNorm stands before the activation, in ANN and SNN alike. Layers in front of
a BatchNorm have no bias.

There are two ANN sides. This network with ReLUs has the same weights, layer by layer, and every method takes it. An
ordinary Vision Transformer (``vit-tiny``: softmax, LayerNorm, GELU) names its features alike and teaches through its
answers or features; no weights of it can be taken over.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.models.activation import Activation
from spikedistill.models.layers import initialise
from spikedistill.models.network import Network
from spikedistill.models.staged import STEMS
from spikedistill.spiking import LIF

SHARES = (8, 4, 2, 1)  # the patch embedding's convolutions have width / share channels
FIRST_POOL = {"cifar": 2, "imagenet": 0}  # which of them is the first that is pooled


class Unit(nn.Module):
    """Convolution, BatchNorm, activation."""

    def __init__(self, c_in: int, c_out: int, kernel: int, activation: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.bn, self.relu = nn.BatchNorm2d(c_out), activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class AttentionProduct(nn.Module):
    """Softmax-free attention of tokens on a grid, as a module so that its operations can be counted.

    ``y[l] = mean over m of (q[l] . k[m]) v[m]`` per head; q, k, v and y are ``[N, heads * d, H, W]``, computed with
    ``2 * heads * d * d * H * W`` multiply-accumulates an image.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        q, k, v = (z.flatten(2).unflatten(1, (self.heads, -1)) for z in (q, k, v))
        return ((v @ k.transpose(-1, -2)) @ q).reshape(shape) / q.shape[-1]


class Attention(nn.Module):
    """Spiking self-attention: q, k, v and the result are spikes in the SNN, rectified in the ANN."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.q, self.k, self.v = (Unit(width, width, 1, activation) for _ in range(3))
        self.product = AttentionProduct(heads)
        self.bn, self.relu = nn.BatchNorm2d(width), activation()
        self.proj = Unit(width, width, 1, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.relu(self.bn(self.product(self.q(x), self.k(x), self.v(x)))))


class EncoderBlock(nn.Module):
    """Attention and perceptron, each added to what it takes; the sums are of spikes, as in SEW-ResNet."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.attention = Attention(width, heads, activation)
        self.fc1, self.fc2 = Unit(width, 4 * width, 1, activation), Unit(4 * width, width, 1, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.fc2(self.fc1(x))


class Spikformer(Network):
    """Patch embedding by convolutions, position embedding by a convolution, encoder blocks, mean over tokens, ``fc``.

    A stage is what has one resolution: pooling ends it. Blocks are the convolutions of the patch embedding and, in the
    last stage, the position embedding and the encoder blocks, which end with the activation that feeds their last sum.

    Args:
        num_classes, in_channels: K and C.
        stem: ``cifar`` (patches of 4x4 pixels) or ``imagenet`` (16x16).
        width: dimension of the embedding, a multiple of 8 and of ``heads``.
        depth: number of encoder blocks.
        heads: attention heads.
        timesteps, neuron: as in ``Network``.

    Raises:
        UserError: unknown stem, or a width that cannot be divided.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        width: int = 256,
        depth: int = 4,
        heads: int = 8,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        super().__init__(timesteps, neuron)
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        if width % SHARES[0] or width % heads:
            raise UserError(
                f"spikformer's width must be a multiple of {SHARES[0]} and of its {heads} heads, not {width}"
            )
        self.in_channels = in_channels
        self.stages, self.blocks = {}, {}
        channels = [in_channels, *(width // share for share in SHARES)]
        self.embed = nn.ModuleList(Unit(a, b, 3, self.activation) for a, b in pairwise(channels))
        self.pools = nn.ModuleList(
            nn.MaxPool2d(3, 2, 1) if i >= FIRST_POOL[stem] else nn.Identity() for i in range(len(SHARES))
        )
        self.position = Unit(width, width, 3, self.activation)
        self.encoders = nn.Sequential(*(EncoderBlock(width, heads, self.activation) for _ in range(depth)))
        self.fc = nn.Linear(width, num_classes)
        ends: list[list[str]] = [[]]
        for i, pool in enumerate(self.pools):
            ends[-1].append(f"embed.{i}.relu")
            if not isinstance(pool, nn.Identity):
                ends.append([])
        ends[-1] += ["position.relu", *(f"encoders.{i}.fc2.relu" for i in range(depth))]
        self._name(ends)
        initialise(self)

    def _name(self, ends: list[list[str]]) -> None:
        for stage, paths in enumerate(ends, 1):
            self.stages[f"stage{stage}"] = paths[-1]
            self.blocks.update({f"stage{stage}.block{block}": path for block, path in enumerate(paths, 1)})

    @property
    def encoder(self) -> nn.Module:
        return self._first.relu

    @property
    def _first(self) -> Unit:
        first = self.embed[0]
        assert isinstance(first, Unit)
        return first

    def stem(self, x: Tensor) -> Tensor:
        return self._first.bn(self._first.conv(x))

    def body(self, x: Tensor) -> Tensor:
        x = self.pools[0](x)
        for unit, pool in zip(self.embed[1:], self.pools[1:], strict=True):
            x = pool(unit(x))
        x = self.encoders(x + self.position(x))
        return self.fc(x.mean((-2, -1)))
