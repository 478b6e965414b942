"""Every reader gets hostile files, and no reader is forgotten."""

import ast
import os
import pickle
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harm import Evil
from readers import NO_STRANGER, READERS, Reader

import spikedistill as sd
from spikedistill.errors import UserError, WriteFailed

SOURCE = Path(sd.__file__).parent
SECONDS = 60


def content(make: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    """A harm that changes what a file holds."""
    return lambda file, mark: file.write_bytes(make(file.read_bytes())) and None


def instead(put: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    """A harm that puts something else in the file's place."""

    def act(file: Path, mark: Path) -> None:
        file.unlink()
        put(file)

    return act


def flipped(share: float) -> Callable[[bytes], bytes]:
    def make(whole: bytes) -> bytes:
        at = min(int(share * len(whole)), len(whole) - 1)
        return whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] if whole else b"x"

    return make


NOISE = random.Random(0).randbytes(4093)
NEVER: dict[str, Callable[[Path, Path], None]] = {
    "nothing in it": content(lambda whole: b""),
    "zeros": content(lambda whole: bytes(4093)),
    "noise": content(lambda whole: NOISE),
    "a pickle": lambda file, mark: file.write_bytes(pickle.dumps(Evil(mark))) and None,
    "depth": content(lambda whole: b"[" * 20_000),
}
"""What is no file of any kind."""
PLACES: dict[str, Callable[[Path, Path], None]] = {
    "a folder": instead(lambda file: file.mkdir()),
    "a pipe": instead(os.mkfifo),
    "a device without end": instead(lambda file: file.symlink_to("/dev/zero")),
    "a link to itself": instead(lambda file: file.symlink_to(file.name)),
    "a link to nothing": instead(lambda file: file.symlink_to("/nowhere/at/all")),
}
"""What stands in a file's place."""
DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    **{
        f"cut to {share:.0%}": content(lambda whole, s=share: whole[: int(s * len(whole))]) for share in (0.1, 0.5, 0.9)
    },
    **{f"a byte changed at {share:.0%}": content(flipped(share)) for share in (0.0, 0.01, 0.3, 0.6, 0.99)},
    "twice": content(lambda whole: whole * 2),
    "a tail": content(lambda whole: whole + NOISE),
}
"""What may leave a good file, for all that its reader can see."""
HARMS = NEVER | PLACES | DAMAGES


@contextmanager
def in_time() -> Iterator[None]:
    """No reader waits for a file's end that never comes."""

    def late(*_: object) -> None:
        raise AssertionError(f"still reading after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def must_refuse(reader: Reader, harm: str) -> bool:
    return harm not in reader.takes and (harm in NEVER or (harm in PLACES and not reader.optional))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_end_in_a_sentence_and_leave_nothing(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, mark = READERS[name], tmp_path / "mark"
    for package in reader.needs:
        pytest.importorskip(package)
    for number, (harm, act) in enumerate(HARMS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = reader.make(folder, finished)
        act(file, mark)
        before = sorted(folder.rglob("*"))
        answer: object = "refused"
        try:
            with in_time(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other packages' own
                answer = reader.read(file)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, harm
        except WriteFailed:
            continue
        except Exception as error:
            pytest.fail(f"{harm}: {error!r}")
        passed = answer is None if reader.none else answer == "refused"
        assert passed or not must_refuse(reader, harm), f"{harm} was taken"
        if passed:
            assert sorted(folder.rglob("*")) == before, f"{harm}: something was written"
        assert not mark.exists(), harm


@pytest.mark.parametrize("name", READERS)
def test_the_files_that_are_harmed_are_good_before(name: str, finished: Path, tmp_path: Path) -> None:
    reader = READERS[name]
    for package in reader.needs:
        pytest.importorskip(package)
    if name == "recording .aedat4":
        pytest.skip("written whole by tests/data/test_data_recordings.py")
    assert reader.read(reader.make(tmp_path, finished)) is not None


READING = {
    *(
        "load",
        "loads",
        "safe_load",
        "SafeLoader",
        "load_file",
        "safe_open",
        "read_text",
        "read_bytes",
        "open",
        "fdopen",
        "pread",
    ),
    *("File", "reader", "DictReader", "load_dataset", "load_from_disk", "load_dataset_builder", "read_metadata"),
    *("RDBStorage", "create_study", "read_aedat4", "read_mnist_file", "frombuffer", "fromfile", "memmap", "read_csv"),
    *("fromstring", "genfromtxt", "loadtxt", "imread", "InferenceSession", "load_state_dict_from_url", "urlopen"),
    *("load_model", "read_table", "parse_xml", "extractall", "ZipFile", "TarFile", "unpack_archive", "nir.read"),
    *("timm.create_model", "torch.hub.load", "from_pretrained", "snapshot_download", "hf_hub_download"),
}
"""Names of functions that read files, as they are called."""


def calls() -> set[str]:
    """Each call in the source that may read a file, as ``file: call``; those of ``documents.py`` go through it."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                dotted = called(node.func)
                ours = dotted == "read_text"
                if not ours and (dotted in READING or dotted.rpartition(".")[2] in READING):
                    found.add(f"{path.relative_to(SOURCE)}: {dotted}")
    return found


def called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return f"{called(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else "?"


def test_no_reader_is_forgotten() -> None:
    known = {call for reader in READERS.values() for call in reader.covers} | set(NO_STRANGER)
    found = calls()
    assert not found - known, "a reader without hostile files: put it into tests/reliability/readers.py"
    assert not known - found, "a reader that is no more"
