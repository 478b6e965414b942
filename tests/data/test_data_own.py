import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from spikedistill.data import ImageSet, Loader, StreamSet, from_datasets
from spikedistill.errors import UserError


class Own(Dataset):
    def __init__(self, items, **attributes):
        self.items = items
        self.reads = 0
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads += 1
        return self.items[index]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


def items(count=20, shape=(1, 4, 4), labels=lambda index: index % 4):
    return [(torch.full(shape, index / 100), labels(index)) for index in range(count)]


def given(train, test=None, **settings):
    return from_datasets(train, test or train, **({"validation": 0.0, "seed": 0} | settings))


def numbers(source):
    info = given(Own(items())).info
    loader = Loader(source, info, batch_size=4, device=torch.device("cpu"), shuffle=False, seed=0)
    return [round(float(value) * 100) for x, _ in loader.epoch(0) for value in x[:, 0, 0, 0]]


def test_images_arrive_as_the_user_made_them():
    data = given(Own(items()))
    assert data.info.mean == (0.0,) and data.info.std == (1.0,)
    assert data.info.classes == ("0", "1", "2", "3")
    assert isinstance(data.train, StreamSet)
    assert numbers(data.train) == list(range(20))


def test_validation_part_is_stratified_and_disjoint():
    data = given(Own(items()), validation=0.2)
    assert data.validation is not None
    held = numbers(data.validation)
    assert sorted(held + numbers(data.train)) == list(range(20))
    assert sorted(number % 4 for number in held) == [0, 1, 2, 3]


def test_tensor_dataset_is_held_in_memory():
    images, labels = torch.arange(20).div(100).view(20, 1, 1, 1).expand(20, 1, 4, 4), torch.arange(20) % 4
    tensors = TensorDataset(images, labels)
    assert isinstance(given(tensors).train, ImageSet)
    subset = given(Subset(tensors, [3, 5, 8, 10]), tensors)
    assert isinstance(subset.train, ImageSet)
    assert numbers(subset.train) == [3, 5, 8, 10]


def test_subset_of_an_own_data_set_keeps_reading_it():
    data = given(Subset(Own(items()), [4, 5, 6, 7, 11]), Own(items()))
    assert isinstance(data.train, StreamSet)
    assert numbers(data.train) == [4, 5, 6, 7, 11]


def test_tensor_data_set_with_its_own_getitem_is_not_bypassed():
    class Doubling(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image * 2, label

    data = given(Doubling(torch.ones(8, 1, 4, 4) / 100, torch.arange(8) % 4))
    assert numbers(data.train) == [2] * 8


def test_targets_spare_reading_every_item_unless_they_lie():
    honest = Own(items(), targets=[index % 4 for index in range(20)])
    given(honest, validation=0.2)
    assert honest.reads < 10
    lying = Own(items(), targets=[3 - index % 4 for index in range(20)])
    data = given(lying, validation=0.2)
    assert lying.reads >= 20
    assert data.info.classes == ("0", "1", "2", "3")


def test_class_names_from_the_argument_or_the_data_set():
    named = Own(items(), classes=["a", "b", "c", "d"])
    assert given(named).info.classes == ("a", "b", "c", "d")
    assert given(named, classes=5).info.classes == ("0", "1", "2", "3", "4")
    assert given(Own(items()), classes=["w", "x", "y", "z"]).info.classes == ("w", "x", "y", "z")


@pytest.mark.parametrize("label", [np.int64(1), torch.tensor(1), True, 1])
def test_whole_numbers_of_every_kind_are_labels(label):
    assert numbers(given(Own(items(labels=lambda _: label)), classes=2).train) == list(range(20))


IMAGE = torch.zeros(1, 4, 4)
REFUSED = [
    (Endless(), "the train data set is a Endless; it must be a map-style torch Dataset"),
    (Own([]), "the train data set is empty"),
    (Own([{"image": IMAGE, "label": 0}]), "is a dict; it must be a pair (image tensor [C, H, W], label)"),
    (Own([(IMAGE, 0, 0)]), "is a tuple; it must be a pair"),
    (Own([(np.zeros((4, 4, 1)), 0)]), "has an image of type ndarray; convert it to a torch tensor"),
    (Own([(IMAGE[0], 0)]), "has an image of shape (4, 4); it must be [C, H, W]"),
    (Own([(IMAGE.long(), 0)]), "has an image of torch.int64; it must be uint8 (0..255) or floating point"),
    (Own([(IMAGE, 0.5)]), "has a label of type float; it must be a class number"),
    (Own([(IMAGE, torch.eye(3)[0])]), "has a label of shape (3,); it must be one class number"),
    (Own([(IMAGE, 0), (IMAGE, 2)]), "has labels up to 2 but none of [1]"),
    (Own([(IMAGE, 0), (IMAGE, -1)]), "item 1 of the data set has label -1"),
    (TensorDataset(torch.zeros(2, 1, 4, 4), torch.zeros(2)), "has a label of type float"),
]


@pytest.mark.parametrize(("dataset", "message"), REFUSED)
def test_refused(dataset, message):
    with pytest.raises(UserError) as caught:
        given(dataset)
    assert message in str(caught.value)


def test_disagreeing_parts_are_refused():
    with pytest.raises(UserError, match=r"test images have shape \(3, 4, 4\) where training images have \(1, 4, 4\)"):
        given(Own(items()), Own(items(shape=(3, 4, 4))))
    tensors = TensorDataset(torch.zeros(2, 1, 4, 4), torch.tensor([0, 9]))
    with pytest.raises(UserError, match="row 1 of the test data set has label 9"):
        given(Own(items()), tensors)
    with pytest.raises(UserError, match=r"data\.validation is 2"):
        given(Own(items()), validation=2)


def test_autoaugment_of_normalised_images_is_refused():
    with pytest.raises(UserError, match=r"'autoaugment' needs images in \[0, 1\]"):
        given(Own([(IMAGE - 1, 0)]), augment=("autoaugment",))


def test_label_out_of_range_is_found_when_it_is_read():
    data = given(Own(items()), classes=3)
    with pytest.raises(UserError, match=r"item 3 of the data set has label 3; labels must lie in 0 \.\. 2"):
        numbers(data.train)


def test_labels_in_a_column_are_labels():
    images, labels = torch.rand(20, 1, 4, 4), torch.arange(20) % 4
    column, row = TensorDataset(images, labels[:, None]), TensorDataset(images, labels)
    for train, test in ((column, row), (row, column), (Subset(column, range(20)), column)):
        data = given(train, test, validation=0.2)
        assert data.validation is not None
        parts = (data.train, data.validation, data.test)
        assert all(isinstance(part, ImageSet) and part.labels.ndim == 1 for part in parts)


@pytest.mark.parametrize("classes", [5, np.int64(5), range(5), np.array(list("abcde")), tuple("abcde")])
def test_classes_may_be_their_number_or_their_names(classes):
    assert len(given(Own(items()), classes=classes).info.classes) == 5


@pytest.mark.parametrize("classes", ["abcde", {"a": 0}, 2.0, True, [], 0])
def test_classes_that_are_neither_are_refused(classes):
    with pytest.raises(UserError, match="classes must be the number of classes or their names"):
        given(Own(items()), classes=classes)


def test_whole_numbers_and_floats_in_one_batch_have_one_scale():
    bright = [(torch.full((1, 4, 4), 255, dtype=torch.uint8), 0), (torch.ones(1, 4, 4), 1)]
    data = given(Own(bright * 2))
    loader = Loader(data.train, data.info, batch_size=4, device=torch.device("cpu"), shuffle=False, seed=0)
    ((images, _),) = loader.epoch(0)
    assert images.unique().tolist() == [1.0]
