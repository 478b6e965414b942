"""Sequences of event frames: counted, loaded, augmented, and what a teacher sees of them."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from spikedistill.data import DataInfo, ImageSet, Loader, StreamSet, from_datasets, pixels
from spikedistill.data.events import Events, to_frames
from spikedistill.errors import UserError
from spikedistill.methods.base import FrozenTeacher

CPU = torch.device("cpu")
INFO = DataInfo("events", ("a", "b"), (2, 6, 8), (0.0, 0.0), (0.01, 0.02), 3)


def events(*rows):
    """Events given as (t, x, y, p)."""
    return Events(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def test_events_are_counted_by_slice_polarity_and_place():
    recording = events((0, 0, 0, 1), (5, 3, 1, 0), (49, 3, 1, 0), (50, 3, 1, 0), (99, 2, 1, 1))
    frames = to_frames(recording, (2, 4), 2)
    expected = torch.zeros(2, 2, 2, 4, dtype=torch.uint8)
    expected[0, 1, 0, 0], expected[0, 0, 1, 3], expected[1, 0, 1, 3], expected[1, 1, 1, 2] = 1, 2, 1, 1
    assert torch.equal(frames, expected)


def test_slices_by_count_hold_equally_many_events_whenever_they_come():
    times = [0, 1, 2, 3, 1000, 1001, 1002, 100_000]
    recording = events(*((t, 0, 0, 1) for t in times))
    assert to_frames(recording, (1, 1), 4, "count").flatten(1).sum(1).tolist() == [2, 2, 2, 2]
    assert to_frames(recording, (1, 1), 4, "time").flatten(1).sum(1).tolist() == [7, 0, 0, 1]
    assert to_frames(recording, (1, 1), 3, "count").flatten(1).sum(1).tolist() == [3, 3, 2]


def test_smaller_frames_count_the_events_of_a_coarser_pixel_together():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, high, (5000,), generator=generator) for high in (10_000, 128, 128, 2)]
    recording = Events(rows[0].sort().values, *rows[1:])
    fine, coarse = to_frames(recording, (128, 128), 4), to_frames(recording, (128, 128), 4, size=32)
    together = fine.long().unfold(2, 4, 4).unfold(3, 4, 4).sum((-1, -2))
    assert torch.equal(coarse.long(), together)
    assert int(to_frames(recording, (128, 128), 4, size=48).long().sum()) == 5000


def test_a_pixel_with_very_many_events_stays_at_255():
    recording = events(*((t, 0, 0, 0) for t in range(1000)))
    assert to_frames(recording, (1, 1), 1).tolist() == [[[[255]], [[0]]]]


def test_no_events_are_frames_of_zeros():
    nothing = torch.empty(0, dtype=torch.int64)
    assert to_frames(Events(nothing, nothing, nothing, nothing), (4, 4), 3).tolist() == torch.zeros(3, 2, 4, 4).tolist()


# In time tonic's last slice ends before the last event, which it so leaves out.
@pytest.mark.parametrize(("slicing", "option", "left_out"), [("time", "n_time_bins", 1), ("count", "n_event_bins", 0)])
def test_frames_are_those_of_tonic(slicing, option, left_out):
    functional = pytest.importorskip("tonic.functional", reason="tonic (extra 'events') is not installed")
    import numpy as np

    generator = torch.Generator().manual_seed(2)
    t = torch.arange(4000) * 10 + 5
    x, y, p = (torch.randint(0, high, (4000,), generator=generator) for high in (34, 20, 2))
    array = np.zeros(4000, dtype=[("x", int), ("y", int), ("t", int), ("p", int)])
    for field, values in {"t": t, "x": x, "y": y, "p": p}.items():
        array[field] = values.numpy()
    theirs = functional.to_frame_numpy(array, sensor_size=(34, 20, 2), **{option: 4})
    ours = to_frames(Events(t, x, y, p), (20, 34), 4, slicing)
    difference = ours.long() - torch.from_numpy(theirs).long()
    assert int(difference.abs().sum()) == int(difference[-1, p[-1], y[-1], x[-1]]) == left_out


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 9, (20, 3, 2, 6, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(20) % 2)


def loader(source, **options):
    settings = {"batch_size": 4, "device": CPU, "shuffle": False, "seed": 0} | options
    return Loader(source, INFO, **settings)


def test_batches_have_time_in_front_and_are_scaled_by_channel(sequences):
    images, labels = next(iter(loader(sequences).epoch(0)))
    assert tuple(images.shape) == (3, 4, 2, 6, 8) and labels.tolist() == [0, 1, 0, 1]
    counts = images * torch.tensor(INFO.std).view(2, 1, 1) * 255
    assert torch.equal(counts.round().to(torch.uint8), sequences.images[:4].transpose(0, 1))


@pytest.mark.parametrize("name", ["crop:2", "flip", "rotate:40", "resizedcrop", "cutout:3", "erase:1"])
def test_all_steps_are_augmented_alike(name):
    steps = torch.rand(12, 1, 2, 6, 8, generator=torch.Generator().manual_seed(0)).expand(12, 3, 2, 6, 8)
    source = ImageSet(steps.contiguous(), torch.zeros(12, dtype=torch.int64))
    images, _ = next(iter(loader(source, batch_size=12, augment=(name,)).epoch(0)))
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])
    plain, _ = next(iter(loader(source, batch_size=12).epoch(0)))
    assert not torch.equal(images, plain)


def test_augmented_sequences_equal_augmented_images(sequences):
    """A sequence of one step is an image."""
    single = ImageSet(sequences.images[:, :1], sequences.labels)
    image = DataInfo("image", INFO.classes, INFO.shape, INFO.mean, INFO.std)
    options = {"batch_size": 20, "device": CPU, "shuffle": True, "seed": 1, "augment": ("crop:2", "flip", "cutout:3")}
    sequence, _ = next(iter(Loader(single, INFO, **options).epoch(2)))
    picture, _ = next(iter(Loader(ImageSet(single.images[:, 0], single.labels), image, **options).epoch(2)))
    assert torch.equal(sequence[0], picture)


def test_autoaugment_is_refused_for_sequences(sequences):
    with pytest.raises(UserError, match="'autoaugment' works on pictures and 'events' holds sequences"):
        loader(sequences, augment=("autoaugment",))


def test_streamed_sequences_are_those_in_memory(sequences):
    items = list(zip(sequences.images, sequences.labels.tolist(), strict=True))
    stream = StreamSet(items, torch.arange(20), 0, False, (3, 2, 6, 8), 2)
    options = {"augment": ("crop:1",), "shuffle": True}
    for (x, labels), (y, others) in zip(
        loader(sequences, **options).epoch(1), loader(stream, **options).epoch(1), strict=True
    ):
        assert torch.equal(x, y) and torch.equal(labels, others)


def test_a_users_own_sequences_are_taken(sequences):
    floats = sequences.images.float()
    dataset = TensorDataset(floats, sequences.labels)
    data = from_datasets(dataset, dataset, validation=0.2, seed=0)
    assert (data.info.shape, data.info.timesteps, len(data.train)) == ((2, 6, 8), 3, 16)
    images, _ = next(iter(Loader(data.test, data.info, batch_size=5, device=CPU, shuffle=False, seed=0).epoch(0)))
    assert torch.equal(images, floats[:5].transpose(0, 1))


def test_a_picture_of_a_sequence_is_its_mean_with_the_most_events_brightest(sequences):
    images, _ = next(iter(loader(sequences).epoch(0)))
    shown = pixels(images.select(-4, 1), INFO).permute(2, 0, 1).double()
    mean = sequences.images[1].double().mean(0)
    assert (shown - 255 * mean / mean.max()).abs().max() <= 0.5 + 1e-3
    image = DataInfo("image", ("a",), (3, 4, 4), (0.5,) * 3, (0.25,) * 3)
    assert pixels(torch.zeros(3, 4, 4), image).unique().tolist() == [128]


class Plain(nn.Module):
    """An ANN of somebody's own, which has never heard of time."""

    def forward(self, x):
        assert x.dim() == 4
        return x.flatten(1)[:, :5]


def test_a_teacher_sees_the_mean_of_a_sequence():
    sequence = torch.rand(4, 3, 2, 5, 5)
    teacher = FrozenTeacher(Plain())
    assert torch.allclose(teacher(sequence), teacher(sequence.mean(0)))
    assert torch.equal(teacher(sequence[0]), sequence[0].flatten(1)[:, :5])


def test_distilling_on_sequences_of_a_users_own(tmp_path):
    import spikedistill as sd

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    images = torch.rand(24, 2, 2, 8, 8, generator=generator) + labels[:, None, None, None, None]
    dataset = TensorDataset(images, labels)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(128, 2))
    options = {"model": "2conv", "num_classes": 2, "in_channels": 2, "image_size": 8, "width": 4}
    student = sd.create_model(options.pop("model"), spiking=True, timesteps=2, **options)
    run = sd.distill(teacher, student, dataset, dataset, epochs=1, out=tmp_path / "run", batch_size=8, verbose=False)
    assert run.summary["timesteps"] == 2 and run.summary["teacher_accuracy"] is not None
    student.timesteps = 3
    with pytest.raises(UserError, match=r"timesteps is 3, and data 'own' come as sequences of 2 frames"):
        sd.distill(teacher, student, dataset, dataset, epochs=1, out=tmp_path / "other", verbose=False)
    assert not (tmp_path / "other").exists()
