import torch

from spikedistill.data import DataSettings, ImageSet, SimulatorSettings, list_data, nominal_shape, open_data
from spikedistill.data.catalogue import DIGITS, HUB, VARIATIONS
from spikedistill.data.digits import read_digits
from spikedistill.data.normalise import measured
from spikedistill.data.recordings import RECORDINGS


def test_fixed_split_is_stratified_and_disjoint():
    train, test = read_digits()
    assert (len(train), len(test)) == (1297, 500)
    both = torch.cat([train.images, test.images]).flatten(1)
    assert both.unique(dim=0).shape[0] == 1797
    share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert (share - 500 / 1797).abs().max() < 0.005


def test_brightest_value_is_255_and_grey_values_are_even_steps():
    train, _ = read_digits()
    assert train.images.unique().tolist() == [round(step * 255 / 16) for step in range(17)]


def test_constants_are_those_of_the_training_images():
    train, _ = read_digits()
    assert measured(train.images) == (DIGITS.mean, DIGITS.std)


def test_normalised_training_images_have_zero_mean_and_unit_deviation():
    data = open_data(DataSettings(validation=0), seed=0)
    assert isinstance(data.train, ImageSet)
    x = (data.train.images / 255 - data.info.mean[0]) / data.info.std[0]
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3


def test_parts_and_sizes():
    data = open_data(DataSettings(size=16, channels=3, subset=200, test_subset=100, validation=0.1), seed=0)
    assert data.info.shape == (3, 16, 16)
    assert data.info.mean == DIGITS.mean * 3
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (180, 20, 100)


def test_enlarging_keeps_the_mean_brightness():
    small, large = read_digits()[0], read_digits(size=16)[0]
    assert abs(small.images.float().mean() - large.images.float().mean()) < 1


def test_seed_changes_training_images_but_not_test_images():
    settings = DataSettings(subset=300, test_subset=100)
    first, other = open_data(settings, seed=0), open_data(settings, seed=1)
    assert isinstance(first.train, ImageSet) and isinstance(other.train, ImageSet)
    assert isinstance(first.test, ImageSet) and isinstance(other.test, ImageSet)
    assert not torch.equal(first.train.images, other.train.images)
    assert torch.equal(first.test.images, other.test.images)


def test_every_listed_data_set_has_constants_of_its_own():
    assert set(list_data()) == {"digits", *VARIATIONS, *HUB, *RECORDINGS}
    constants = [(known.mean, known.std) for known in [DIGITS, *VARIATIONS.values(), *HUB.values()]]
    assert len(set(constants)) == len(constants)
    assert all(line and "\n" not in line for line in list_data().values())


def test_measured_constants_equal_the_float64_formula():
    images = torch.randint(0, 256, (3000, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = images.double() / 255
    mean, std = measured(images)
    assert torch.allclose(torch.tensor(mean).double(), x.mean((0, 2, 3)), atol=6e-5)
    assert torch.allclose(torch.tensor(std).double(), x.std((0, 2, 3), correction=0), atol=6e-5)


def test_nominal_shape_is_the_shape_after_opening():
    camera = {"simulator": SimulatorSettings(side=20, loops=1), "subset": 20, "test_subset": 10}
    for settings in (
        *(DataSettings(), DataSettings(size=12), DataSettings(channels=3, size=9), DataSettings(**camera)),
        DataSettings(name="digits-rotated", size=10),
    ):
        channels, height, width = open_data(settings, seed=0).info.shape
        assert height == width
        assert nominal_shape(settings) == (channels, height)
    assert nominal_shape(DataSettings(name="uoft-cs/cifar100")) == (3, 32)
    assert nominal_shape(DataSettings(name="ILSVRC/imagenet-1k", size=160)) == (3, 160)
    assert nominal_shape(DataSettings(path="somewhere")) == (3, 32)
