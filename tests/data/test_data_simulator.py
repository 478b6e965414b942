import dataclasses
import math

import pytest
import torch

from spikedistill.data import DataSettings, ImageSet, Loader, SimulatorSettings, StreamSet, open_data
from spikedistill.data.digits import read_digits
from spikedistill.data.events import Events, to_frames
from spikedistill.data.simulated import Recorder, simulated
from spikedistill.data.simulator import _path, crossings, record
from spikedistill.errors import UserError

STILL = SimulatorSettings(mismatch=0.0, noise=0.0, refractory=0.0)


def crossed(levels, thresholds=0.25, refractory=0.0, step=1000.0):
    """Events of one pixel whose log light takes the given levels, one every ``step`` microseconds: (time, polarity)."""
    values = torch.tensor(levels, dtype=torch.float32).view(-1, 1, 1)
    times = torch.arange(len(levels), dtype=torch.float64) * step
    rows = torch.arange(len(levels))
    _, t, _, p = crossings(values, rows, times, torch.tensor([thresholds]), refractory)
    order = torch.argsort(t, stable=True)
    return list(zip(t[order].tolist(), p[order].tolist(), strict=True))


def test_a_rising_level_gives_an_event_each_time_it_has_risen_by_the_threshold():
    assert crossed([0.0, 1.0]) == [(250, 1), (500, 1), (750, 1), (1000, 1)]
    assert crossed([0.0, -0.5]) == [(500, 0), (1000, 0)]
    assert crossed([0.0, 0.24]) == []


def test_a_pixel_remembers_the_level_of_its_last_event_not_the_last_level():
    # 0.2 is no event yet; 0.3 passes 0.25 half-way; from the remembered 0.25 down to 0 is one threshold.
    assert crossed([0.0, 0.2, 0.3, 0.0]) == [(1500, 1), (3000, 0)]
    # A level that swings by less than the threshold says nothing, however long.
    assert crossed([0.0, 0.2, 0.0, 0.2, -0.2] * 20) == []


def test_a_blind_pixel_follows_without_reporting():
    # Crossings at 250, 500, 750, 1000; blind for 400 after each that is reported.
    assert crossed([0.0, 1.0], refractory=400.0) == [(250, 1), (750, 1)]
    # It has followed: the way back starts from 1.0, not from what it last reported.
    assert crossed([0.0, 1.0, 1.0, 0.75], refractory=400.0) == [(250, 1), (750, 1), (3000, 0)]


def test_events_of_many_pixels_equal_those_of_each_alone():
    generator = torch.Generator().manual_seed(1)
    levels = torch.randn(12, 3, 5, generator=generator)
    times = torch.arange(12, dtype=torch.float64) * 700
    thresholds = torch.rand(5, generator=generator) * 0.3 + 0.1
    which, t, pixel, p = crossings(levels, torch.arange(12), times, thresholds, 150.0)
    for image in range(3):
        for place in range(5):
            mine = (which == image) & (pixel == place)
            together = sorted(zip(t[mine].tolist(), p[mine].tolist(), strict=True))
            alone = crossed(levels[:, image, place].tolist(), float(thresholds[place]), 150.0, 700.0)
            assert together == sorted(alone)


def test_an_edge_that_moves_right_darkens_what_it_covers():
    # White on the left, black on the right, moving right: pixels at the edge become brighter, then darker again.
    image = torch.zeros(1, 1, 16, 16)
    image[..., :8] = 1.0
    settings = dataclasses.replace(STILL, travel=2.5 / 16, loops=1, seconds=0.4)
    (events,) = record(image, settings, "train", [0])
    assert set(events.x.tolist()) <= {5, 6, 7, 8, 9, 10}
    # From the top to the right and on to the bottom: the first half of the way is to the right, then the left.
    first = events.t < 100_000
    assert (events.p[first] == 1).all() and first.sum() > 0
    middle = (events.t > 100_000) & (events.t < 300_000)
    assert (events.p[middle] == 0).all()
    contrast = math.log(1 + settings.dark) - math.log(settings.dark)
    wholly_crossed = (events.x == 8) & (events.y == 8) & first
    assert int(wholly_crossed.sum()) == int(contrast / settings.threshold)


def test_a_closed_loop_gives_as_much_brightening_as_darkening():
    images = read_digits(size=16)[0].images[:20]
    recordings = record(images, dataclasses.replace(STILL, loops=3), "train", range(20))
    for events in recordings:
        counts = torch.zeros(2, 256, dtype=torch.int64)
        counts.index_put_((events.p, events.y * 16 + events.x), torch.ones_like(events.p), accumulate=True)
        # Each pixel ends where it began, but for what the threshold's steps leave of it.
        assert (counts[0] - counts[1]).abs().max() <= 1


def test_the_path_is_closed_and_steps_less_than_a_pixel():
    for side, travel in ((16, 0.06), (128, 0.06), (48, 0.3)):
        path = torch.tensor(_path(dataclasses.replace(STILL, travel=travel), side))
        there = torch.cat([path[1:], path[:1]]) - path
        assert there.norm(dim=1).max() <= 0.8
        assert torch.allclose(path.mean(0), torch.zeros(2), atol=1e-5)
        assert float(path.abs().max()) == pytest.approx(travel * side)


def test_a_uniform_image_is_silent_but_for_noise():
    images = torch.full((3, 1, 20, 20), 0.5)
    assert [len(events) for events in record(images, STILL, "train", range(3))] == [0, 0, 0]
    noisy = dataclasses.replace(STILL, noise=5.0, seconds=2.0)
    counts = [len(events) for events in record(images, noisy, "train", range(3))]
    expected = 5.0 * 2.0 * 400
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts) and len(set(counts)) > 1


def test_thresholds_differ_from_pixel_to_pixel_by_the_mismatch():
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 40, 40)
    rates = []
    for mismatch in (0.0, 0.1):
        (events,) = record(ramp, dataclasses.replace(STILL, mismatch=mismatch, loops=20), "train", [0])
        columns = torch.bincount(events.y * 40 + events.x, minlength=1600).view(40, 40)[:, 5].double()
        rates.append(float(columns.std() / columns.mean()))
    assert rates[0] == 0.0 and rates[1] > 0.02


def test_a_recording_follows_from_seed_part_and_index_alone():
    images = read_digits(size=16)[0].images[:6]
    settings = SimulatorSettings(loops=1)
    together = record(images, settings, "train", range(6))
    torch.manual_seed(1)
    alone = record(images[4:5], settings, "train", [4])[0]
    for field in ("t", "x", "y", "p"):
        assert torch.equal(getattr(together[4], field), getattr(alone, field))
    assert not same(alone, record(images[4:5], settings, "test", [4])[0])
    assert not same(alone, record(images[4:5], settings, "train", [5])[0])
    assert not same(alone, record(images[4:5], dataclasses.replace(settings, seed=1), "train", [4])[0])


def same(first: Events, second: Events):
    return len(first) == len(second) and torch.equal(first.t, second.t) and torch.equal(first.x, second.x)


def test_events_come_in_order_within_the_recording_and_the_sensor():
    images = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    for events in record(images, SimulatorSettings(side=24, loops=2), "train", range(4)):
        assert (events.t.diff() >= 0).all() and events.t.min() >= 0 and events.t.max() <= 1_200_000
        assert max(events.x.max(), events.y.max()) < 24 and set(events.p.tolist()) == {0, 1}


def test_any_image_set_becomes_sequences_of_event_frames():
    settings = DataSettings(simulator=SimulatorSettings(side=16, loops=1), frames=3, subset=60, test_subset=20)
    data = open_data(settings, seed=0)
    assert (
        isinstance(data.train, ImageSet) and isinstance(data.test, ImageSet) and isinstance(data.validation, ImageSet)
    )
    assert (data.info.shape, data.info.timesteps) == ((2, 16, 16), 3)
    assert tuple(data.test.images.shape) == (20, 3, 2, 16, 16) and len(data.train) + len(data.validation) == 60
    images, labels = next(iter(loader(data, batch_size=8).epoch(0)))
    assert tuple(images.shape) == (3, 8, 2, 16, 16) and labels.shape == (8,)
    assert data.info.mean == (0.0, 0.0)
    everything = torch.cat([data.train.images, data.validation.images]).double() / 255 / data.info.std[0]
    assert float(everything.square().mean()) == pytest.approx(1.0, abs=0.01)


def loader(data, **options):
    settings = {"batch_size": 8, "device": torch.device("cpu"), "shuffle": False, "seed": 0} | options
    return Loader(data.train, data.info, **settings)


def test_streamed_and_in_memory_recordings_are_equal(image_folder):
    camera = {"simulator": SimulatorSettings(loops=1, noise=20.0), "frames": 2, "std": (0.02,), "validation": 0.25}
    memory, stream = (
        open_data(DataSettings(path=str(image_folder), in_memory=kept, **camera), seed=0) for kept in (True, False)
    )
    assert isinstance(stream.train, StreamSet) and memory.info == stream.info
    for (x, labels), (y, others) in zip(loader(memory).epoch(0), loader(stream).epoch(0), strict=True):
        assert torch.equal(x, y) and torch.equal(labels, others)


def test_recordings_of_a_whole_set_are_kept_and_changed_settings_make_new_ones(monkeypatch):
    train, test = read_digits(size=8)
    made = []
    original = Recorder.__call__

    def counted(self, images, part, indices):
        made.append(len(indices))
        return original(self, images, part, indices)

    monkeypatch.setattr(Recorder, "__call__", counted)
    from spikedistill.data.images import Opened

    opened = Opened("digits", tuple("0123456789"), train, train.labels, test)
    settings = DataSettings(simulator=SimulatorSettings(loops=1))
    first, again = simulated(opened, settings), simulated(opened, settings)
    assert sum(made) == 1797
    assert isinstance(first.train, ImageSet) and isinstance(again.train, ImageSet)
    assert torch.equal(first.train.images, again.train.images)
    simulated(opened, dataclasses.replace(settings, slicing="count"))
    assert sum(made) == 2 * 1797


def test_frames_of_a_recording_show_where_it_moved():
    # What to_frames counts is what crossings found.
    images = read_digits(size=16)[0].images[:1]
    (events,) = record(images, STILL, "train", [0])
    frames = to_frames(events, (16, 16), 4)
    assert int(frames.sum()) == len(events) and frames.amax((0, 1))[0, 0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": 0}, "data.simulator.side is 0; it must be at least 1"),
        ({"loops": 0}, "data.simulator.loops is 0"),
        ({"threshold": 0.0}, "data.simulator.threshold is 0.0; it must be above 0"),
        ({"seconds": math.inf}, "data.simulator.seconds is inf"),
        ({"noise": -1.0}, "data.simulator.noise is -1.0; it must be 0 or more"),
        ({"refractory": math.nan}, "data.simulator.refractory is nan"),
    ],
)
def test_settings_out_of_range_are_refused(change, said):
    with pytest.raises(UserError) as refused:
        SimulatorSettings(**change)
    assert said in str(refused.value)
