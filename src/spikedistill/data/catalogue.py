"""Data sets the program knows by name: one line for people, normalisation constants for the loader.

The constants are mean and standard deviation of the training images over all pixels, in units of [0, 1]: those of
MNIST, its variations, CIFAR-10 and the digits are recomputed by the tests, the others are the ones in general use.
Each set has its own; CIFAR-10 with CIFAR-100's constants is a mistake found in public code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A data set with known constants.

    Attributes:
        line: what it is, for ``spikedistill list data``.
        classes: number of classes.
        mean: per channel, in units of [0, 1].
        std: per channel.
        side: height and width in pixels; where the images vary, the one usually chosen.
    """

    line: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DIGITS = Known(
    "handwritten digits of scikit-learn, 1,297 + 500 grey images of 8 x 8, always there", 10, (0.3050,), (0.3758,), 8
)

HUB: dict[str, Known] = {
    "ylecun/mnist": Known("MNIST, 60,000 + 10,000 grey images of 28 x 28, 10 classes", 10, (0.1307,), (0.3081,), 28),
    "zalando-datasets/fashion_mnist": Known(
        "Fashion-MNIST, 60,000 + 10,000 grey images of 28 x 28, 10 classes", 10, (0.2860,), (0.3530,), 28
    ),
    "uoft-cs/cifar10": Known(
        "CIFAR-10, 50,000 + 10,000 colour images of 32 x 32, 10 classes",
        10,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        32,
    ),
    "uoft-cs/cifar100": Known(
        "CIFAR-100, 50,000 + 10,000 colour images of 32 x 32, 100 classes",
        100,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        32,
    ),
    "zh-plus/tiny-imagenet": Known(
        "Tiny-ImageNet, 100,000 + 10,000 colour images of 64 x 64, 200 classes",
        200,
        (0.4802, 0.4481, 0.3975),
        (0.2770, 0.2691, 0.2821),
        64,
    ),
    "ILSVRC/imagenet-1k": Known(
        "ImageNet, 1,281,167 + 50,000 colour images of many sizes (set size), 1,000 classes; the hub asks for a login",
        1000,
        IMAGENET_MEAN,
        IMAGENET_STD,
        224,
    ),
}


VARIATIONS: dict[str, Known] = {
    "mnist-rotated": Known(
        "MNIST turned by any angle (Larochelle et al. 2007), 12,000 + 50,000 grey images of 28 x 28, 10 classes",
        *(10, (0.1310,), (0.2903,), 28),
    ),
    "mnist-background-random": Known(
        "MNIST before noise (Larochelle et al. 2007), 12,000 + 50,000 grey images of 28 x 28, 10 classes",
        *(10, (0.5654,), (0.3086,), 28),
    ),
    "mnist-background-image": Known(
        "MNIST before photographs (Larochelle et al. 2007), 12,000 + 50,000 grey images of 28 x 28, 10 classes",
        *(10, (0.4914,), (0.2922,), 28),
    ),
    "mnist-rotated-background-image": Known(
        "MNIST turned, before photographs (Larochelle et al. 2007), 12,000 + 50,000 grey images of 28 x 28, 10 classes",
        *(10, (0.4916,), (0.2851,), 28),
    ),
    "digits-rotated": Known("the digits turned by any angle", 10, (0.3003,), (0.3212,), 8),
    "digits-background-random": Known("the digits before noise", 10, (0.6525,), (0.2958,), 8),
    "digits-background-image": Known("the digits before photographs", 10, (0.5742,), (0.2904,), 8),
    "digits-rotated-background-image": Known("the digits turned, before photographs", 10, (0.5734,), (0.2601,), 8),
}


def stand_in(name: str) -> str:
    """The digits that take a data set's place in a smoke run: in the same variation, where it is one."""
    varied = name.replace("mnist-", "digits-", 1)
    return varied if varied in VARIATIONS else "digits"
