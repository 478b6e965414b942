"""Recorded event sets, read from small files in the formats in which the sets are published."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from spikedistill.data import DataSettings, ImageSet, Loader, StreamSet, list_data, nominal_shape, open_data
from spikedistill.data.events import to_frames
from spikedistill.data.recordings import CIFAR10, RECORDINGS, SPLIT_SEED, TEST_SHARE, read_recording
from spikedistill.data.split import stratified_split
from spikedistill.errors import UserError


@pytest.fixture
def tonic():
    return pytest.importorskip("tonic", reason="tonic (extra 'events') is not installed")


@pytest.fixture
def aedat():
    pytest.importorskip("tonic", reason="tonic (extra 'events') is not installed")
    return pytest.importorskip("aedat", reason="aedat (extra 'events') is not installed")


def some_events(count, side, seed=0):
    """Columns t, x, y, p of events in order."""
    generator = np.random.default_rng(seed)
    t = np.sort(generator.integers(0, 300_000, count))
    return t, generator.integers(0, side, count), generator.integers(0, side, count), generator.integers(0, 2, count)


def nmnist_bytes(t, x, y, p):
    """N-MNIST: five bytes an event, x, y, and 1 bit of polarity before 23 of microseconds."""
    packed = (p.astype(np.int64) << 23) | t
    columns = [x, y, packed >> 16, (packed >> 8) & 255, packed & 255]
    return np.stack(columns, 1).astype(np.uint8).tobytes()


def aedat2_bytes(t, x, y, p):
    """AEDAT 2 of a DVS128: text, then big-endian pairs of address and microseconds; mirrored, 1 for darker."""
    address = ((127 - y) << 8) | ((127 - x) << 1) | (1 - p)
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n"
    return header + np.stack([address, t], 1).astype(">u4").tobytes()


def aedat4_bytes(t, x, y, p):
    """AEDAT 4 without compression: a header and one packet of events, both FlatBuffers."""
    flatbuffers = pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")

    node = (
        '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
        '<node name="0" path="/mainloop/Recorder/outInfo/0/">'
        '<attr key="compression" type="string">NONE</attr><attr key="typeIdentifier" type="string">EVTS</attr>'
        '<node name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" type="int">128</attr>'
        '<attr key="sizeY" type="int">128</attr></node></node></node></dv>'
    )
    header = flatbuffers.Builder(1024)
    text = header.CreateString(node)
    header.StartObject(3)
    header.PrependInt32Slot(0, 0, 1)
    header.PrependInt64Slot(1, -1, 0)
    header.PrependUOffsetTRelativeSlot(2, text, 0)
    header.FinishSizePrefixed(header.EndObject(), b"IOHE")
    packet = flatbuffers.Builder(16 * len(t) + 64)
    packet.StartVector(16, len(t), 8)
    for row in reversed(range(len(t))):
        packet.Prep(8, 16)
        packet.Pad(3)
        packet.PrependBool(bool(p[row]))
        packet.PrependInt16(int(y[row]))
        packet.PrependInt16(int(x[row]))
        packet.PrependInt64(int(t[row]))
    elements = packet.EndVector()
    packet.StartObject(1)
    packet.PrependUOffsetTRelativeSlot(0, elements, 0)
    packet.FinishSizePrefixed(packet.EndObject(), b"EVTS")
    body = bytes(packet.Output())
    return b"#!AER-DAT4.0\r\n" + bytes(header.Output()) + struct.pack("<ii", 0, len(body)) + body


def gesture_array(t, x, y, p):
    return np.stack([x, y, p, t // 1000], 1).astype(np.float64)


WRITERS = {".bin": nmnist_bytes, ".aedat": aedat2_bytes, ".aedat4": aedat4_bytes}


def write(file, columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, gesture_array(*columns))
    else:
        file.write_bytes(WRITERS[file.suffix](*columns))
    return file


NEEDS = {".bin": "tonic", ".aedat": None, ".aedat4": "aedat", ".npy": None}


@pytest.fixture(params=list(NEEDS))
def suffix(request):
    if NEEDS[request.param]:
        request.getfixturevalue(NEEDS[request.param])
    return request.param


def sides(suffix):
    return 34 if suffix == ".bin" else 128


def test_every_format_gives_back_the_events_that_were_written(suffix, tmp_path):
    side = sides(suffix)
    t, x, y, p = some_events(500, side)
    events = read_recording(write(tmp_path / f"1{suffix}", (t, x, y, p)), (side, side), "it")
    assert torch.equal(events.t, torch.from_numpy(t // 1000 * 1000 if suffix == ".npy" else t))
    for ours, written in ((events.x, x), (events.y, y), (events.p, p)):
        assert torch.equal(ours, torch.from_numpy(written))


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, 0.9, -1])
def test_files_cut_short_are_refused_by_name_in_one_sentence(suffix, kept, tmp_path):
    side = sides(suffix)
    file = write(tmp_path / f"1{suffix}", some_events(301, side))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    if len(file.read_bytes()) % 5 == 0 and suffix == ".bin":
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"recording 'it' (cannot be read|holds no events)") as refused:
        read_recording(file, (side, side), "recording 'it'")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_what_is_no_recording_is_refused(suffix, tmp_path):
    file = tmp_path / f"1{suffix}"
    file.write_bytes(b"no recording at all.")
    side = 4 if suffix == ".bin" else 128
    with pytest.raises(UserError, match="it "):
        read_recording(file, (side, side), "it")


def test_events_outside_the_sensor_and_empty_recordings_are_refused(tonic, tmp_path):
    columns = some_events(50, 34)
    file = write(tmp_path / "1.bin", columns)
    with pytest.raises(UserError, match=r"it has an event at column \d+, row \d+, outside the sensor's 16 x 16 pixels"):
        read_recording(file, (16, 16), "it")
    file.write_bytes(b"")
    with pytest.raises(UserError, match="it holds no events"):
        read_recording(file, (34, 34), "it")


def test_a_pickled_array_is_not_unpickled(tmp_path):
    np.save(tmp_path / "1.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="it cannot be read"):
        read_recording(tmp_path / "1.npy", (128, 128), "it")
    np.save(tmp_path / "2.npy", np.zeros((5, 3)))
    with pytest.raises(UserError, match=r"its array has shape \[5, 3\], not \[events, 4\]"):
        read_recording(tmp_path / "2.npy", (128, 128), "it")


@pytest.fixture
def cifar10_dvs(tmp_path):
    """Ten recordings a class, whose number of events tells which they are."""
    for label, name in enumerate(CIFAR10):
        for number in range(10):
            columns = some_events(100 + 10 * label + number, 128, seed=number)
            write(tmp_path / "dvs" / name / f"cifar10_{name}_{number}.aedat", columns)
    return tmp_path / "dvs"


def opened(name, path, **settings):
    return open_data(DataSettings(name=name, path=str(path), validation=settings.pop("validation", 0), **settings), 0)


def test_cifar10_dvs_is_split_nine_to_one_in_every_class(cifar10_dvs):
    data = opened("cifar10-dvs", cifar10_dvs, size=48, frames=4)
    assert isinstance(data.train, ImageSet) and isinstance(data.test, ImageSet)
    assert tuple(data.train.images.shape) == (90, 4, 2, 48, 48) and data.info.shape == (2, 48, 48)
    assert data.train.labels.bincount().tolist() == [9] * 10 and data.test.labels.bincount().tolist() == [1] * 10
    every = torch.cat([data.train.images, data.test.images]).flatten(1).sum(1)
    assert every.sort().values.tolist() == list(range(100, 200))
    labels = torch.cat([data.train.labels, data.test.labels])
    assert torch.equal((every - 100) // 10, labels)
    assert data.info.classes == CIFAR10 and data.info.timesteps == 4


def test_the_split_is_the_same_for_everybody():
    # 1,000 recordings a class: which of the 10,000 are the test part must never change.
    labels = torch.arange(10).repeat_interleave(1000)
    _, test = stratified_split(labels, TEST_SHARE, SPLIT_SEED)
    assert len(test) == 1000
    digest = hashlib.sha256(",".join(map(str, test.tolist())).encode()).hexdigest()
    assert digest == SPLIT_DIGEST


SPLIT_DIGEST = "23e70c75bfc274c5cfdf030d3a3ffc531488f86fb5d91280f8e241ea28b4a8cf"


def test_recordings_are_sorted_by_their_numbers(cifar10_dvs):
    rows = RECORDINGS["cifar10-dvs"].listed(cifar10_dvs)[0]
    numbers = [int(file.rpartition("_")[2].removesuffix(".aedat")) for file in rows.files if "_cat_" in file]
    assert numbers == sorted(numbers) and len(numbers) == 9


def test_both_formats_of_cifar10_dvs_give_the_same_frames(aedat, tmp_path):
    columns = some_events(400, 128)
    frames = [
        to_frames(read_recording(write(tmp_path / f"1{suffix}", columns), (128, 128), "it"), (128, 128), 4, size=48)
        for suffix in (".aedat", ".aedat4")
    ]
    assert torch.equal(*frames)


def test_n_mnist_and_gestures_have_the_parts_they_come_with(tonic, tmp_path):
    for part, count in (("Train", 3), ("Test", 2)):
        for digit in range(10):
            for number in range(count):
                write(tmp_path / "NMNIST" / part / str(digit) / f"{number:05}.bin", some_events(40 + digit, 34, number))
    data = opened("n-mnist", tmp_path, frames=2)
    assert isinstance(data.train, ImageSet)
    assert (len(data.train), len(data.test), data.info.shape) == (30, 20, (2, 34, 34))
    assert torch.equal(data.train.images.flatten(1).sum(1) - 40, data.train.labels)
    for part, user in (("ibmGestureTrain", "user01_led"), ("ibmGestureTest", "user24_lab")):
        for gesture in range(11):
            write(tmp_path / "gestures" / part / user / f"{gesture}.npy", some_events(60 + gesture, 128))
    data = opened("dvs128-gesture", tmp_path / "gestures", frames=3, size=32, slicing="count")
    assert isinstance(data.train, ImageSet)
    assert (len(data.train), len(data.test), data.info.timesteps) == (11, 11, 3)
    assert torch.equal(data.train.images.flatten(1).sum(1) - 60, data.train.labels)
    assert data.info.classes[8] == "air drums"


def test_streamed_recordings_are_those_in_memory_and_the_cache_is_read(cifar10_dvs, monkeypatch):
    options = {"size": 16, "frames": 2, "std": (0.01,), "augment": ("crop:2", "flip")}
    memory, stream = (opened("cifar10-dvs", cifar10_dvs, in_memory=kept, **options) for kept in (None, False))
    assert isinstance(stream.train, StreamSet)
    loaders = [
        Loader(data.train, data.info, batch_size=30, device=torch.device("cpu"), shuffle=True, seed=0).epoch(0)
        for data in (memory, stream)
    ]
    for (x, labels), (y, others) in zip(*loaders, strict=True):
        assert torch.equal(x, y) and torch.equal(labels, others)
    monkeypatch.setattr("spikedistill.data.recordings.read_recording", None)
    assert len(opened("cifar10-dvs", cifar10_dvs, **options).train) == 90
    with pytest.raises(TypeError):
        opened("cifar10-dvs", cifar10_dvs, **options | {"frames": 3})


def test_wrong_folders_and_settings_are_refused(tmp_path, cifar10_dvs):
    with pytest.raises(UserError, match="has no folder 'Train'; pass the folder of n-mnist's own files"):
        opened("n-mnist", cifar10_dvs)
    (tmp_path / "n" / "Train").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no recordings of n-mnist"):
        opened("n-mnist", tmp_path / "n")
    with pytest.raises(UserError, match=r"data\.channels is for images, and 'cifar10-dvs' holds recorded events"):
        opened("cifar10-dvs", cifar10_dvs, channels=1)
    with pytest.raises(UserError, match=r"data\.frames is 0"):
        opened("cifar10-dvs", cifar10_dvs, frames=0)
    with pytest.raises(UserError, match=r"unknown data\.slicing 'tme'; did you mean 'time'"):
        opened("cifar10-dvs", cifar10_dvs, slicing="tme")
    bad = cifar10_dvs / "cat" / "cifar10_cat_3.aedat"
    bad.write_bytes(bad.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"recording '.*cifar10_cat_3\.aedat' cannot be read \(cut short\)"):
        opened("cifar10-dvs", cifar10_dvs)
    gesture = tmp_path / "g" / "ibmGestureTrain" / "user01_led" / "11.npy"
    write(gesture, some_events(5, 128))
    with pytest.raises(UserError, match=r"11\.npy' is not named by a gesture"):
        opened("dvs128-gesture", tmp_path / "g")


def test_without_tonic_the_sentence_says_what_to_install(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.io", None)
    (tmp_path / "Train" / "0").mkdir(parents=True)
    for part in ("Train", "Test"):
        for digit in range(10):
            write(tmp_path / part / str(digit) / "0.bin", some_events(5, 34))
    with pytest.raises(UserError, match=r"pip install 'spikedistill\[events\]'"):
        opened("n-mnist", tmp_path)
    with pytest.raises(UserError, match=r"data set 'n-mnist' needs tonic, .*pip install 'spikedistill\[events\]'"):
        open_data(DataSettings(name="n-mnist"), 0)


def test_a_download_that_fails_says_to_pass_a_path(tonic, monkeypatch):
    import tonic.datasets

    def unreachable(save_to):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(tonic.datasets, "NMNIST", unreachable)
    with pytest.raises(UserError, match=r"'n-mnist' could not be downloaded \(no route to host\); pass a local copy"):
        open_data(DataSettings(name="n-mnist"), 0)


def test_the_catalogue_and_the_nominal_shape_know_them():
    assert set(RECORDINGS) < set(list_data())
    assert nominal_shape(DataSettings(name="cifar10-dvs", size=48)) == (2, 48)
    assert nominal_shape(DataSettings(name="n-mnist")) == (2, 34)
