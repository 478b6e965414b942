import pytest
import torch

from spikedistill.data import DataSettings, ImageSet, open_data, variation_examples
from spikedistill.data import variations as module
from spikedistill.data.catalogue import VARIATIONS as CATALOGUE
from spikedistill.data.digits import read_digits
from spikedistill.data.normalise import measured
from spikedistill.data.variations import (
    LOW_DEVIATION,
    VARIATIONS,
    photograph_patches,
    varied_digits,
    varied_mnist,
)
from spikedistill.errors import UserError

KINDS = list(VARIATIONS)


def opened(name, **settings):
    return open_data(DataSettings(name=name, validation=settings.pop("validation", 0), **settings), seed=0)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def bars(count, size=28):
    """White upright bars on black; what is turned can be told by their second moments."""
    images = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    images[:, :, 4:-4, size // 2 - 2 : size // 2 + 2] = 255
    return images


def directions(images):
    """The angle of each image's long axis in degrees, modulo 180."""
    weight = images[:, 0].double()
    place = torch.arange(images.shape[-1]).double() - (images.shape[-1] - 1) / 2
    across, down = place[None, None, :], place[None, :, None]
    xx, yy, xy = ((weight * product).sum((1, 2)) for product in (across**2, down**2, across * down))
    return (torch.atan2(2 * xy, xx - yy) / 2).rad2deg() % 180


def test_the_catalogue_lists_every_variation_of_either_base():
    assert set(CATALOGUE) == {f"{base}-{kind}" for base in ("mnist", "digits") for kind in VARIATIONS}


def test_rotation_is_uniform_over_all_angles():
    angles = directions(VARIATIONS["rotated"](bars(4000), draws()))
    counts = torch.histc(angles, 12, 0, 180)
    # 4,000 in 12 bins: 333 each, standard deviation 17.5.
    assert (counts - 4000 / 12).abs().max() < 5 * 17.5


def test_rotation_turns_about_the_middle_and_leaves_the_brightness():
    plain = bars(64)
    turned = VARIATIONS["rotated"](plain, draws())
    assert (turned.double().sum((1, 2, 3)) / plain.double().sum((1, 2, 3)) - 1).abs().max() < 0.02
    place = torch.arange(28).double() - 13.5
    total = turned[:, 0].double().sum((1, 2))
    assert ((turned[:, 0].double().sum(1) @ place) / total).abs().max() < 0.15
    assert ((turned[:, 0].double().sum(2) @ place) / total).abs().max() < 0.15


def test_noise_is_uniform_behind_black_and_hidden_behind_white():
    digit = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    digit[:, :, 10:18, 10:18] = 255
    noisy = VARIATIONS["background-random"](digit, draws())
    assert (noisy[:, :, 10:18, 10:18] == 255).all()
    behind = noisy[(digit == 0)]
    counts = torch.bincount(behind.long(), minlength=256).double()
    expected = len(behind) / 256
    assert (counts - expected).abs().max() < 6 * expected**0.5
    assert len(noisy.flatten(1).unique(dim=0)) == 200


def test_a_grey_pixel_is_as_opaque_as_it_is_bright():
    digit = torch.full((1, 1, 28, 28), 51, dtype=torch.uint8)  # a fifth
    grey = VARIATIONS["background-image"](digit, draws(3))[0, 0].double()
    background = photograph_patches(1, 28, 28, draws(3))[0, 0].double()
    assert torch.equal(grey, (51 + 0.8 * background).round())


def test_patches_are_cut_out_of_the_photographs_and_have_texture():
    patches = photograph_patches(300, 28, 28, draws())
    assert patches.double().flatten(1).std(1, correction=0).min() >= LOW_DEVIATION
    assert len(patches.flatten(1).unique(dim=0)) > 290
    assert all(any(is_in(photo, patch) for photo in photographs()) for patch in patches[:3, 0])


def photographs():
    return module._photographs()


def is_in(photo, patch):
    corners = (photo.unfold(1, 28, 1)[:-27] == patch[0]).all(-1).nonzero().tolist()
    return any(torch.equal(photo[y : y + 28, x : x + 28], patch) for y, x in corners)


def test_every_textured_place_of_a_photograph_is_found():
    photo = photographs()[-1][:60, :80]
    windows = photo.unfold(0, 28, 1).unfold(1, 28, 1).double().flatten(2)
    textured = (windows.std(2, correction=0) >= LOW_DEVIATION).nonzero()
    assert torch.equal(module._textured(photo, 28, 28), textured)


def test_both_perturbations_are_combined():
    varied = VARIATIONS["rotated-background-image"](bars(500), draws())
    turned = VARIATIONS["rotated"](bars(500), draws())
    assert (varied[turned == 255] == 255).all()
    assert (varied >= turned).all()
    assert varied[turned == 0].float().std() > 40


@pytest.mark.parametrize("kind", KINDS)
def test_images_follow_from_the_code_alone(kind):
    first, again = (varied_digits(kind, size=12) for _ in range(2))
    torch.manual_seed(99)
    third = varied_digits(kind, size=12)
    for part in (0, 1):
        assert torch.equal(first[part].images, again[part].images)
        assert torch.equal(first[part].images, third[part].images)
        assert torch.equal(first[part].labels, read_digits()[part].labels)
    other = (
        opened(f"digits-{kind}", size=12),
        open_data(DataSettings(name=f"digits-{kind}", size=12, validation=0, subset=600), seed=5),
    )
    assert isinstance(other[0].test, ImageSet) and isinstance(other[1].test, ImageSet)
    assert torch.equal(other[0].test.images, other[1].test.images)


@pytest.mark.parametrize("kind", KINDS)
def test_mnist_parts_have_their_sizes_and_do_not_depend_on_the_copys_order(kind):
    images = torch.zeros(700, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 27, 27] = torch.arange(700) // 255, torch.arange(700) % 255
    labels = torch.arange(700) % 10
    mixed = torch.randperm(700, generator=draws())
    train, test = varied_mnist(kind, ImageSet(images[:600], labels[:600]), ImageSet(images[600:], labels[600:]))
    images, labels = images[mixed], labels[mixed]
    others = varied_mnist(kind, ImageSet(images[:500], labels[:500]), ImageSet(images[500:], labels[500:]))
    # 62,000 in all are taken, 12 parts to 50; here there are fewer.
    assert (len(train), len(test)) == (135, 565)
    for part, other in zip((train, test), others, strict=True):
        assert torch.equal(part.images, other.images)
        assert torch.equal(part.labels, other.labels)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith("digits-")])
def test_constants_are_those_of_the_training_images(name):
    data = opened(name)
    assert isinstance(data.train, ImageSet)
    assert measured(data.train.images) == (data.info.mean, data.info.std)
    assert (data.info.mean, data.info.std) == (CATALOGUE[name].mean, CATALOGUE[name].std)
    assert (len(data.train), len(data.test), data.info.shape) == (1297, 500, (1, 8, 8))


def test_a_variation_in_colour_repeats_the_grey():
    data = opened("digits-background-image", channels=3, size=10, subset=100)
    assert isinstance(data.train, ImageSet)
    assert data.info.shape == (3, 10, 10)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_examples_show_every_variation_of_the_same_digits():
    digits = read_digits(size=28)[1].images[:6]
    shown = variation_examples(digits)
    assert list(shown) == KINDS
    assert all(images.shape == digits.shape and images.dtype == torch.uint8 for images in shown.values())
    assert all(torch.equal(images, variation_examples(digits)[kind]) for kind, images in shown.items())


def test_what_is_not_the_digits_is_refused(image_folder):
    with pytest.raises(UserError, match="'digits-rotated' is made of the digits that are always there"):
        opened("digits-rotated", path=str(image_folder))
    with pytest.raises(UserError, match=r"has 2 classes where 'mnist-rotated' is made of MNIST's 10 digits"):
        opened("mnist-rotated", path=str(image_folder))
    with pytest.raises(UserError, match="unknown data set 'mnist-rotatd'; did you mean 'mnist-rotated'"):
        opened("mnist-rotatd")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith("mnist-")])
def test_real_mnist_gives_the_sets_of_the_paper(shared_data, name):
    data = opened(name, path=shared_data("mnist"))
    assert isinstance(data.train, ImageSet) and isinstance(data.test, ImageSet)
    assert (len(data.train), len(data.test), data.info.shape) == (12_000, 50_000, (1, 28, 28))
    assert measured(data.train.images) == (data.info.mean, data.info.std)
    assert data.train.labels.bincount().min() > 1000
    overlap = torch.cat([data.train.images, data.test.images]).flatten(1)[:, ::3].unique(dim=0)
    assert len(overlap) > 61_990
