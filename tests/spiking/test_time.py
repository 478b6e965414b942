"""Folding, the mean over T, and how images become sequences."""

import pytest
import torch
from torch import Tensor

from spikedistill.spiking import time


def numbered(timesteps: int, batch: int) -> Tensor:
    """``[T, B, 2]`` where the first value names the step and the second the image."""
    steps = torch.arange(timesteps).view(-1, 1).expand(timesteps, batch)
    images = torch.arange(batch).expand(timesteps, batch)
    return torch.stack([steps, images], dim=-1).float()


@pytest.mark.parametrize(("timesteps", "batch"), [(1, 1), (1, 5), (4, 1), (4, 3)])
def test_fold_puts_image_b_of_step_t_in_row_t_times_b_plus_b(timesteps: int, batch: int) -> None:
    folded = time.fold(numbered(timesteps, batch))
    assert folded.shape == (timesteps * batch, 2)
    for t in range(timesteps):
        for b in range(batch):
            assert folded[t * batch + b].tolist() == [t, b]


@pytest.mark.parametrize(("timesteps", "batch"), [(1, 1), (1, 5), (4, 1), (4, 3)])
def test_unfold_undoes_fold_without_a_copy(timesteps: int, batch: int) -> None:
    x = numbered(timesteps, batch)
    back = time.unfold(time.fold(x), timesteps)
    assert torch.equal(back, x)
    assert back.data_ptr() == x.data_ptr()


def test_readout_is_the_mean_and_not_the_sum() -> None:
    steps = torch.tensor([[[1.0, 0.0]], [[3.0, 0.5]], [[2.0, 1.0]], [[0.0, 0.5]]])
    assert torch.equal(time.readout(steps), torch.tensor([[1.5, 0.5]]))


def test_rate_is_the_readout_of_a_folded_feature() -> None:
    x = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(time.rate(time.fold(x), 3), time.readout(x))
    # numbered: the mean over the steps 0..3 is 1.5, and each image keeps its own number
    assert time.rate(time.fold(numbered(4, 3)), 3).tolist() == [[1.5, 0.0], [1.5, 1.0], [1.5, 2.0]]


def test_rate_of_a_feature_without_time_is_itself() -> None:
    x = torch.rand(3, 5)
    assert time.rate(x, 3) is x


def test_direct_coding_repeats_the_image_without_a_copy() -> None:
    images = torch.rand(3, 1, 4, 4)
    encoded = time.direct_encode(images, 6)
    assert encoded.shape == (6, 3, 1, 4, 4)
    assert all(torch.equal(step, images) for step in encoded)
    assert encoded.data_ptr() == images.data_ptr() and encoded.stride(0) == 0


def test_direct_coding_carries_the_gradient_of_every_step() -> None:
    images = torch.rand(2, 3, requires_grad=True)
    time.direct_encode(images, 5).sum().backward()
    assert torch.equal(images.grad, torch.full((2, 3), 5.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("intensity", [0.1, 0.25, 0.5, 0.9])
def test_poisson_coding_spikes_at_the_rate_of_the_intensity(intensity: float) -> None:
    timesteps, pixels = 500, 100
    images = torch.full((pixels,), intensity)
    spikes = time.poisson_encode(images, timesteps, torch.Generator().manual_seed(0))
    assert spikes.shape == (timesteps, pixels)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    variance = intensity * (1 - intensity)
    assert spikes.mean().item() == pytest.approx(intensity, abs=4 * (variance / (timesteps * pixels)) ** 0.5)
    # independent from step to step, and from pixel to pixel: no correlation beyond chance
    centred = spikes - intensity
    for products in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(products.mean().item()) < 4 * variance / products.numel() ** 0.5


def test_poisson_coding_clamps_the_intensity() -> None:
    spikes = time.poisson_encode(torch.tensor([-0.5, 0.0, 1.0, 1.5]), 1000, torch.Generator().manual_seed(0))
    assert spikes.mean(0).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_poisson_coding_repeats_with_its_generator_and_leaves_the_global_one_alone() -> None:
    images = torch.full((4, 8), 0.5)
    before = torch.get_rng_state()
    first, again, other = (time.poisson_encode(images, 6, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_poisson_coding_without_a_generator_follows_the_global_seed() -> None:
    images = torch.full((4, 8), 0.5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = time.poisson_encode(images, 6)
        torch.manual_seed(3)
        assert torch.equal(time.poisson_encode(images, 6), first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_poisson_coding_keeps_the_dtype(dtype: torch.dtype) -> None:
    assert time.poisson_encode(torch.rand(3, 4, dtype=dtype), 2).dtype == dtype
