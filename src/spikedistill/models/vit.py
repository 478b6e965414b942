"""An ordinary Vision Transformer, the ANN side of a spiking transformer.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1; width and depth of DeiT-tiny (Touvron et al.
2021). Patch embedding, learned positions, pre-norm blocks of softmax attention and a GELU perceptron, LayerNorm, mean
over tokens, ``fc``. Initialised as in the first paper's code, except for a classifier at zero: DeiT's matrices of 0.02
whatever the width start a narrow network slowly.

It is an ANN only: softmax and LayerNorm have no spiking twin, and nothing here takes the activation that makes the
other networks spiking (``spikify`` finds its GELUs and leaves the rest analogue). Its spiking side is
``spikformer-tiny``, which it teaches. The defaults suit that one's images of 32x32 pixels in 8x8 tokens; for ImageNet:
``image_size=224, patch=16, stages=5``.

Features are the blocks' outputs, the residual stream, on the tokens' grid. No activation ends a block, so a feature is
the same before and after, and it is signed: a term that supposes a ReLU there (KDSNN's partial L2) takes it as it is. A
Vision Transformer has one resolution; its blocks are shared out over as many stages as ``spikformer-tiny`` has, so that
the two name theirs alike (OFA-KD, Hao et al. 2023, splits transformers into stages for the same purpose).

Deviations: the mean over tokens (an option of that code) stands for the class token, so that both sides answer from all
tokens; 4 heads for DeiT-tiny's 3, so that the usual widths can be divided; no dropout and no stochastic depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.network import Network


class EncoderBlock(nn.Module):
    """Attention and perceptron on normalised tokens, each added to what it takes: maps ``[B, W, h, w]`` to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.gelu, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.feature = nn.Identity()  # where the block's output can be tapped as a map

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.fc2(self.gelu(self.fc1(self.norm2(x))))
        return self.feature(x.transpose(1, 2).unflatten(2, grid))


class ViT(Network):
    """A Vision Transformer; an ANN only.

    Args:
        num_classes, in_channels: K and C.
        image_size: side of the square input in pixels, a multiple of ``patch``.
        width: dimension of the tokens, a multiple of ``heads``.
        depth: number of encoder blocks.
        heads: attention heads.
        patch: side of a patch in pixels; each is a token.
        stages: how many stages the blocks are shared out over; ``spikformer-tiny`` has 3 with the stem ``cifar`` and 5
            with ``imagenet``.

    Raises:
        UserError: a size that cannot be divided, or fewer blocks than stages.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int = 32,
        width: int = 192,
        depth: int = 12,
        heads: int = 4,
        patch: int = 4,
        stages: int = 3,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"vit's width must be a multiple of its {heads} heads, not {width}")
        if image_size % patch:
            raise UserError(f"vit cuts images into patches of {patch}x{patch} pixels, which {image_size} cannot be")
        if depth < stages:
            raise UserError(f"vit shares its blocks out over {stages} stages and needs as many, not {depth}")
        self.in_channels, self.image_size = in_channels, image_size
        side = image_size // patch
        self.embed = nn.Conv2d(in_channels, width, patch, patch)
        self.position = nn.Parameter(torch.empty(width, side, side))
        self.encoders = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, num_classes)
        self.stages, self.blocks = {}, {}
        for stage in range(stages):
            paths = [f"encoders.{i}.feature" for i in range(stage * depth // stages, (stage + 1) * depth // stages)]
            self.stages[f"stage{stage + 1}"] = paths[-1]
            self.blocks |= {f"stage{stage + 1}.block{block}": path for block, path in enumerate(paths, 1)}
        self._initialise()

    def _initialise(self) -> None:
        """Matrices Xavier-uniform, biases zero, positions small; ``embed`` keeps torch's own."""
        nn.init.normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # attention's input projections, one matrix, torch starts so itself
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def stem(self, x: Tensor) -> Tensor:
        return self.embed(x)

    def encode(self, current: Tensor, direct: bool) -> Tensor:
        return current  # no activation precedes the first block

    def body(self, x: Tensor) -> Tensor:
        tokens = self.encoders(x + self.position).flatten(2).transpose(1, 2)
        return self.fc(self.norm(tokens).mean(1))
