"""The data set that is always there: scikit-learn's handwritten digits.

1,797 grey images of 8 x 8 with values 0..16 (the test part of the UCI "Optical Recognition of Handwritten Digits"
set), split once and for all into 1,297 training and 500 test images, the same share of each digit in both.
"""

import torch

from spikedistill.data.sets import ImageSet
from spikedistill.data.split import stratified_subset

CLASSES = tuple(str(digit) for digit in range(10))
TEST_IMAGES = 500
SPLIT_SEED = 0


def read_digits(size: int | None = None, channels: int | None = None) -> tuple[ImageSet, ImageSet]:
    """Reads the training and the test part.

    Args:
        size: side to enlarge the 8 x 8 images to (bilinear); None leaves them.
        channels: 3 repeats the grey channel.

    Returns:
        Training part of 1,297 and test part of 500 images, uint8 with 16 mapped to 255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]  # pyright: ignore
    labels = torch.from_numpy(bunch.target).to(torch.int64)  # pyright: ignore
    if size is not None and size != images.shape[-1]:
        images = _resized(images, size)
    if channels == 3:
        images = images.expand(-1, 3, -1, -1).contiguous()
    held = stratified_subset(labels, TEST_IMAGES, SPLIT_SEED, purpose="digits")
    is_test = torch.zeros(labels.shape[0], dtype=torch.bool)
    is_test[held] = True
    return ImageSet(images[~is_test], labels[~is_test]), ImageSet(images[is_test], labels[is_test])


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resizes ``[N, C, H, W]`` uint8 images to ``size`` x ``size``."""
    resized = torch.nn.functional.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
