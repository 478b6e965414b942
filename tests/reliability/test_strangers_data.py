"""Data sets, images and NIR files from strangers: nothing runs, reaches out or blows up."""

import io
import pickle
import socket
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harm import Evil, refused

from spikedistill.data import DataSettings, open_data


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))


def test_a_data_folder_with_a_script_runs_nothing(tmp_path: Path) -> None:
    folder, mark = tmp_path / "stranger", tmp_path / "mark"
    folder.mkdir()
    (folder / "stranger.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    refused(lambda: open_data(DataSettings(path=str(folder)), 0))
    assert not mark.exists()


def test_a_table_cannot_name_images_outside_its_folder(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    secret = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    folder = tmp_path / "data"
    folder.mkdir()
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    for part in ("train", "test"):
        rows = {"image": [{"bytes": None, "path": str(secret)}] * 2, "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{part}-0.parquet"))
    message = refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0), 0))
    assert "which lies outside" in message


CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n---\n"
PLACES = [
    "../outside/train-0.parquet",
    "{}/train-0.parquet",
    "https://localhost:1/train-0.parquet",
    "hf://a/b/c",
    "~/x",
]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_card_cannot_name_files_outside_its_folder(
    tmp_path: Path, place: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from readers import table

    outside, folder = tmp_path / "outside", tmp_path / "data"
    outside.mkdir()
    folder.mkdir()
    table(0).to_parquet(str(outside / "train-0.parquet"))
    table(0).to_parquet(str(folder / "test-0.parquet"))
    monkeypatch.setattr(socket, "socket", None)  # nothing is asked of the network
    for name, text in (("README.md", CARD), (".huggingface.yaml", CARD.replace("---\n", ""))):
        (folder / name).write_text(text.format(place.format(outside)))
        settings = DataSettings(path=str(folder), validation=0.0, streaming=streaming)
        assert "which lies outside its folder" in refused(lambda settings=settings: open_data(settings, 0))
        (folder / name).unlink()
    (folder / "README.md").write_text(CARD.format("test-*"))
    assert "outside" not in refused(lambda: open_data(settings, 0))  # it has no test part, and that is all


def test_a_saved_table_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    import datasets
    from readers import table

    folder = tmp_path / "data"
    datasets.DatasetDict({part: table(0) for part in ("train", "test")}).save_to_disk(str(folder))
    state, splits = folder / "train" / "state.json", folder / "dataset_dict.json"
    good, settings = state.read_text(), DataSettings(path=str(folder), validation=0.0)
    for place in ("../../outside.arrow", str(tmp_path / "outside.arrow")):
        state.write_text(good.replace("data-00000-of-00001.arrow", place))
        assert "which lies outside its folder" in refused(lambda: open_data(settings, 0))
    state.write_text(good)
    splits.write_text('{"splits": ["train", "../outside"]}')
    assert "which lies outside its folder" in refused(lambda: open_data(settings, 0))
    splits.write_text('{"splits": 3}')
    assert "does not list its splits" in refused(lambda: open_data(settings, 0))


def test_no_pickle_inside_a_table_or_an_archive_runs(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from readers import picture, table

    mark = tmp_path / "mark"
    harm, image = pickle.dumps(Evil(mark)), io.BytesIO()
    picture(0).save(image, "PNG")
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": harm}
    column = pyarrow.field("evil", pyarrow.binary(), metadata=kind)
    rows = table(0).with_format("arrow")[:].append_column(column, pyarrow.array([b"x"] * 4))
    for name in ("parquet", "arrow", "tar", "pickles"):
        (tmp_path / name).mkdir()
    for part in ("train", "test"):
        parquet.write_table(rows, tmp_path / "parquet" / f"{part}-0.parquet")
        with (
            pyarrow.OSFile(str(tmp_path / "arrow" / f"{part}-0.arrow"), "wb") as sink,
            pyarrow.ipc.new_stream(sink, rows.schema) as writer,
        ):
            writer.write_table(rows)
        (tmp_path / "pickles" / f"{part}-0.pkl").write_bytes(harm)
        with tarfile.open(tmp_path / "tar" / f"{part}.tar", "w") as archive:
            parts = {"0.png": image.getvalue(), "0.cls": b"0", "../../escaped.png": image.getvalue()}
            for name, content in (parts | {f"0.{kind}": harm for kind in ("pyd", "pickle", "pth", "npy")}).items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    before = set(tmp_path.rglob("*"))
    for name in ("parquet", "arrow"):
        assert len(open_data(DataSettings(path=str(tmp_path / name), validation=0.0), 0).train) == 4
    for name in ("tar", "pickles"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, at such a pickle
            refused(lambda name=name: open_data(DataSettings(path=str(tmp_path / name), validation=0.0), 0))
    assert not mark.exists()
    assert set(tmp_path.rglob("*")) == before


def image_folder(tmp_path: Path, content: bytes, name: str = "0.png") -> Path:
    from PIL import Image

    for part in ("train", "test"):
        place = tmp_path / "images" / part / "cat"
        place.mkdir(parents=True)
        Image.new("L", (8, 8)).save(place / "a.png")
    (tmp_path / "images" / "train" / "cat" / name).write_bytes(content)
    return tmp_path / "images"


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has ``side`` x ``side`` pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2
    rows = zlib.compress(bytes(1 + side) * 8)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + bytes([8, 0, 0, 0, 0]))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_an_image_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    folder = image_folder(tmp_path, bomb(side))
    message = refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0, size=8), 0))
    assert "0.png" in message
    assert "cannot be read as an image" in message


def test_no_other_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow hands PostScript to Ghostscript, whatever the file is called.
    from PIL import EpsImagePlugin

    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: started.append(arguments))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    folder = image_folder(tmp_path, script)
    assert "cannot be read as an image" in refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0), 0))
    assert not started


BROKEN = [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0" + bytes(20), bytes(1000)]


@pytest.mark.parametrize("content", BROKEN)
def test_images_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = image_folder(tmp_path, content)
    assert "0.png" in refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0), 0))


def hdf5(fill: Callable[[Any], object]) -> io.BytesIO:
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    buffer.seek(0)
    return buffer


def test_a_nir_file_cannot_reach_out_of_itself_nor_grow(tmp_path: Path) -> None:
    h5py, numpy = pytest.importorskip("h5py"), pytest.importorskip("numpy")
    pytest.importorskip("nir")
    from spikedistill.export.interpreter import read_nir

    secret = tmp_path / "secret"
    secret.write_bytes(bytes(800))
    cases = {
        "is a link to somewhere else": lambda file: file.create_group("node").__setitem__(
            "nodes", h5py.ExternalLink(str(secret), "/")
        ),
        "lie in another file": lambda file: file.create_group("node").create_dataset(
            "weight", shape=(100,), dtype="f8", external=[(str(secret), 0, 800)]
        ),
        "claims to hold more than": lambda file: file.create_group("node").create_dataset(
            "weight", shape=(2**20, 2**20), dtype="f4", chunks=(64, 64)
        ),
        "lies within itself": lambda file: file.create_group("node").__setitem__("again", file["node"]),
        "is not a NIR file": lambda file: file.create_dataset("node", data=numpy.ones(3)),
    }
    for said, fill in cases.items():
        assert said in refused(lambda fill=fill: read_nir(hdf5(fill)))
    assert "is not a NIR file" in refused(lambda: read_nir(io.BytesIO(pickle.dumps(Evil(tmp_path / "mark")))))
    assert not (tmp_path / "mark").exists()


def nir_file(edges: list[tuple[str, str]], without: str = "") -> io.BytesIO:
    """A graph of a threshold and a linear layer with these edges, as HDF5."""
    h5py, numpy = pytest.importorskip("h5py"), pytest.importorskip("numpy")
    nodes = {
        "in": {"type": "Input", "shape": [2]},
        "a": {"type": "Threshold", "threshold": numpy.ones(2)},
        "b": {"type": "Linear", "weight": numpy.eye(2)},
        "out": {"type": "Output", "shape": [2]},
    }

    def fill(file: Any) -> None:
        group = file.create_group("node")
        group["type"] = "NIRGraph"
        group.create_dataset("edges", data=numpy.array(edges, dtype=object), dtype=h5py.string_dtype())
        for name, fields in nodes.items():
            for key, value in fields.items():
                if name != without:
                    group[f"nodes/{name}/{key}"] = value

    return hdf5(fill)


LINE = [("in", "a"), ("a", "b"), ("b", "out")]


@pytest.mark.parametrize(
    ("edges", "without", "said"),
    [
        ([*LINE, ("b", "a")], "", "is part of a cycle"),
        ([*LINE, ("a", "a")], "", "is part of a cycle"),
        (LINE, "b", "names 'b', which is no node"),
        (LINE, "in", "a graph with one Input is needed, and it has 0"),
        ([("in", "a"), ("a", "out")], "", "nothing leads to node 'b'"),
        ([*LINE, ("out", "in")], "", "leads into the Input or out of the Output"),
    ],
)
def test_nir_graphs_with_cycles_or_missing_nodes_are_refused(edges: Any, without: str, said: str) -> None:
    pytest.importorskip("nir")
    from spikedistill.export.interpreter import read_nir

    read_nir(nir_file(LINE))
    assert said in refused(lambda: read_nir(nir_file(edges, without)))
