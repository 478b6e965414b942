"""Every reader of files that may come from a stranger: what it reads, made whole, and how it is called."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import forked
import torch


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        covers: the calls in the source that it goes through, as ``file: call``.
        make: makes a good one in an empty folder, given a finished run's folder; returns the file to be harmed.
        read: reads it.
        none: whether what is bad is passed over (a cache is made anew) and ``read`` then returns None.
        optional: whether something else under the file's name is taken for no file.
        takes: harms that leave a good one.
        needs: packages that it takes.
    """

    covers: tuple[str, ...]
    make: Callable[[Path, Path], Path]
    read: Callable[[Path], object]
    none: bool = False
    optional: bool = False
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def a_text(name: str, text: str) -> Callable[[Path, Path], Path]:
    def make(folder: Path, run: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def of_a_run(name: str) -> Callable[[Path, Path], Path]:
    def make(folder: Path, run: Path) -> Path:
        shutil.copytree(run, folder / "run")
        return folder / "run" / name

    return make


def measured(name: str, content: object) -> Callable[[Path, Path], Path]:
    """A run with a file that the commands ``eval`` and ``energy`` add."""

    def make(folder: Path, run: Path) -> Path:
        file = of_a_run(name)(folder, run)
        file.write_text(json.dumps(content))
        return file

    return make


def checkpoint(folder: Path, run: Path) -> Path:
    *older, newest = sorted(of_a_run("checkpoints")(folder, run).iterdir())
    for path in older:
        path.unlink()
    return newest


def torch_file(folder: Path, run: Path) -> Path:
    from spikedistill.runfolder import read_state

    torch.save(read_state(run / "student.safetensors"), folder / "weights.pt")
    return folder / "weights.pt"


def picture(number: int) -> Any:
    from PIL import Image

    return Image.frombytes("L", (9, 8), bytes((7 * number + place * place) % 256 for place in range(72)))


def image_folder(suffix: str) -> Callable[[Path, Path], Path]:
    def make(folder: Path, run: Path) -> Path:
        for part in ("train", "test"):
            for label in ("cat", "dog"):
                place = folder / "pets" / part / label
                place.mkdir(parents=True)
                for number in range(2):
                    picture(number).save(place / f"{number}{suffix}")
        return folder / "pets" / "train" / "dog" / f"1{suffix}"

    return make


def table(number: int, images: int = 4) -> Any:
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"image": [picture(number + row) for row in range(images)], "label": [row % 2 for row in range(images)]}
    return datasets.Dataset.from_dict(columns, features=kinds)


def parquet(folder: Path, run: Path) -> Path:
    (folder / "table").mkdir()
    for part in ("train", "test"):
        table(len(part)).to_parquet(str(folder / "table" / f"{part}-00000-of-00001.parquet"))
    return folder / "table" / "train-00000-of-00001.parquet"


def arrow(name: str) -> Callable[[Path, Path], Path]:
    def make(folder: Path, run: Path) -> Path:
        import datasets

        datasets.DatasetDict({part: table(len(part)) for part in ("train", "test")}).save_to_disk(str(folder / "table"))
        return folder / "table" / name

    return make


def decoded(folder: Path, run: Path) -> Path:
    from spikedistill.data.cache import Decoded, write_cache
    from spikedistill.data.sets import ImageSet

    train, test = (ImageSet(torch.zeros(4, 1, 3, 3, dtype=torch.uint8), torch.arange(4) % 2) for _ in range(2))
    write_cache(folder / "decoded.safetensors", Decoded(("cat", "dog"), train, test))
    return folder / "decoded.safetensors"


def recording(suffix: str) -> Callable[[Path, Path], Path]:
    """Twenty events of a sensor of 34 x 34."""

    def make(folder: Path, run: Path) -> Path:
        import numpy as np

        file, at = folder / f"1{suffix}", np.arange(20)
        if suffix == ".npy":
            np.save(file, np.stack([at, at, at % 2, at], 1).astype(np.float64))
        elif suffix == ".aedat":
            address = ((127 - at) << 8) | ((127 - at) << 1)
            file.write_bytes(b"#!AER-DAT2.0\r\n" + np.stack([address, at], 1).astype(">u4").tobytes())
        elif suffix == ".bin":
            file.write_bytes(np.stack([at, at, 0 * at, at, at], 1).astype(np.uint8).tobytes())
        else:
            file.write_bytes(b"#!AER-DAT4.0\r\n")  # the test of recordings writes whole ones
        return file

    return make


@cache
def database(run: Path) -> bytes:
    """That of a search; made once, for it takes a second."""
    file = run.parent / "trials.db"
    read_trials(file)
    return file.read_bytes()


def trials(folder: Path, run: Path) -> Path:
    (folder / "trials.db").write_bytes(database(run))
    return folder / "trials.db"


def read_trials(file: Path) -> object:
    from spikedistill.models.subnets import SPACE
    from spikedistill.search.bayes import search
    from spikedistill.search.measure import Measured

    return search(lambda subnet: Measured(50.0, 10, 0.1), SPACE, 2, storage=file, name="s", seed=0)


def nir_file(folder: Path, run: Path) -> Path:
    import spikedistill as sd
    from spikedistill.export.about import About
    from spikedistill.export.nir_file import nir_bytes

    network = sd.create_model("2conv", num_classes=2, in_channels=1, image_size=4, width=1, spiking=True, timesteps=2)
    (folder / "it.nir").write_bytes(nir_bytes(network.eval(), torch.zeros(1, 1, 4, 4), About(timesteps=2)))
    return folder / "it.nir"


EXPERIMENT = {
    "name": "it",
    "scale": "small",
    "command": "spikedistill experiment it",
    "title": "It",
    "source": "A paper",
    "about": "",
    "runs": {"finished": 1, "planned": 1},
    "seeds": [0],
    **{key: ["one"] for key in ("device", "torch", "commit")},
    "tables": [{"title": "A table", "heads": ["row", "%"], "rows": [["a", "1"]], "notes": []}],
    "pictures": [{"files": ["it.svg"], "caption": "A picture", "name": "it"}],
    "notes": [],
    "data": {},
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


def experiment(name: str) -> Callable[[Path, Path], Path]:
    def make(folder: Path, run: Path) -> Path:
        shutil.copytree(run, folder / "run")
        (folder / "experiment.json").write_text(json.dumps(EXPERIMENT))
        (folder / "it.svg").write_text(SVG)
        return folder / name

    return make


def read_experiment(file: Path) -> object:
    from spikedistill.report.contents import arrange
    from spikedistill.report.experiment import experiments
    from spikedistill.report.runs import read_run

    return experiments(arrange([read_run(file.parent / "run")]))


def read_page(file: Path) -> object:
    from spikedistill.report import find_runs, print_table, write_run_report

    print_table(find_runs([file.parent]))
    return write_run_report(file.parent)


def read_config(file: Path) -> object:
    import spikedistill as sd

    return sd.load(file.parent)


def read_summary(file: Path) -> object:
    from spikedistill.run import train

    return train(forked.recipe(file.parent, "epochs=1", name="digits-2conv-snn"), resume=True, verbose=False)


def read_recipe(file: Path) -> object:
    from spikedistill.recipebook import read_recipe

    return read_recipe(str(file))


def read_run_list(file: Path) -> object:
    from spikedistill.runlist import plan, read_run_list

    return plan(read_run_list(file), file.parent / "runs", [])


def read_sweep(file: Path) -> object:
    from spikedistill.sweep import plan, read_sweep

    return plan(read_sweep(str(file)), "small", file.parent / "runs", [])


def results(folder: Path, run: Path) -> Path:
    from spikedistill.results import GENERATED

    (folder / "list.yaml").write_text(RUN_LIST)
    (folder / "README.md").write_text(GENERATED)
    return folder / "README.md"


def read_results(file: Path) -> object:
    from spikedistill.results import enlist

    enlist(file.parent / "list.yaml", file.parent)
    return file


def read_weights(file: Path) -> object:
    from spikedistill.runfolder import read_state

    return read_state(file)


def read_checkpoint(file: Path) -> object:
    from spikedistill.engine.checkpoint import latest_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return latest_checkpoint(file.parent)


def read_cached(file: Path) -> object:
    from spikedistill.data.cache import read_cache

    return read_cache(file)


def root(file: Path) -> Path:
    """The folder of the data set that a file belongs to."""
    return next(place for place in file.parents if place.name in ("pets", "table"))


def read_data(file: Path) -> object:
    from spikedistill.data import DataSettings, open_data

    return open_data(DataSettings(path=str(root(file)), validation=0.0), 0)


def read_items(file: Path) -> object:
    """One by one, as a set is read that does not fit into memory."""
    from spikedistill.data import DataSettings, Loader, open_data

    data = open_data(DataSettings(path=str(root(file)), validation=0.0, in_memory=False), 0)
    loader = Loader(data.train, data.info, batch_size=2, device=torch.device("cpu"), shuffle=True, seed=0)
    return list(loader.epoch(0))


def read_stream(file: Path) -> object:
    from spikedistill.data import DataSettings, Loader, open_data

    settings = {"mean": (0.0,), "std": (1.0,), "validation": 0.0, "streaming": True}
    data = open_data(DataSettings(path=str(root(file)), **settings), 0)  # type: ignore[arg-type]
    loader = Loader(data.train, data.info, batch_size=2, device=torch.device("cpu"), shuffle=True, seed=0)
    return list(loader.epoch(0))


def read_recording(file: Path) -> object:
    from spikedistill.data.recordings import read_recording

    return read_recording(file, (34, 34), f"'{file.name}'")


def read_nir(file: Path) -> object:
    from spikedistill.export.interpreter import read_nir

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_nir(file)


RECIPE = "method: {name: snn}\nstudent: {model: 2conv}\nepochs: 2\n"
RUN_LIST = "title: It\nseeds: [0]\nruns:\n  - {recipe: digits-2conv-ann}\n  - {recipe: digits-2conv-snn, label: b}\n"
SWEEP = (
    "title: It\nsource: a paper\nstudy: grid\nsmoke: [a]\nseeds: [0]\n"
    "runs:\n  - {recipe: digits-2conv-ann, label: a, row: x, column: y}\n"
)
YAML = ("documents.py: yaml.SafeLoader", "documents.py: path.read_text")
IMAGE = ("data/decode.py: Image.open", "data/decode.py: image.load")
HUB = ("data/hub.py: datasets.load_dataset", "data/hub.py: read_metadata", "data/hub.py: json.loads")

READERS: dict[str, Reader] = {
    "recipe": Reader(YAML, a_text("it.yaml", RECIPE), read_recipe),
    "list of runs": Reader(YAML, a_text("it.yaml", RUN_LIST), read_run_list),
    "experiment": Reader(YAML, a_text("it.yaml", SWEEP), read_sweep),
    "results page": Reader((), results, read_results, takes=("a link to itself", "a link to nothing")),
    "config, loaded": Reader(YAML, of_a_run("config.yaml"), read_config),
    "config, shown": Reader(YAML, of_a_run("config.yaml"), read_page),
    "summary, shown": Reader(("documents.py: json.loads",), of_a_run("summary.json"), read_page, optional=True),
    "summary, gone on with": Reader(
        ("documents.py: json.loads",), of_a_run("summary.json"), read_summary, optional=True
    ),
    "metrics": Reader(("report/runs.py: csv.DictReader",), of_a_run("metrics.csv"), read_page, optional=True),
    "evaluation": Reader(("documents.py: json.loads",), of_a_run("evaluation.json"), read_page, optional=True),
    "energy": Reader((), measured("energy.json", {}), read_page, optional=True),
    "robustness": Reader((), measured("robustness.json", {"curves": {}}), read_page, optional=True),
    "latency": Reader((), measured("latency.json", {"accuracy": {"1": 50.0}, "exits": []}), read_page, optional=True),
    "experiment's record": Reader((), experiment("experiment.json"), read_experiment, optional=True),
    "experiment's picture": Reader(
        ("report/experiment.py: file.read_bytes",), experiment("it.svg"), read_experiment, optional=True
    ),
    "weights": Reader(
        ("runfolder.py: load", "runfolder.py: path.read_bytes"), of_a_run("student.safetensors"), read_config
    ),
    "weights of torch": Reader(("runfolder.py: torch.load",), torch_file, read_weights),
    "checkpoint": Reader(
        ("engine/checkpoint.py: torch.load", "engine/checkpoint.py: path.read_bytes"),
        checkpoint,
        read_checkpoint,
        none=True,
    ),
    "decoded data": Reader(("data/cache.py: safe_open", "data/cache.py: json.loads"), decoded, read_cached, none=True),
    **{
        f"image {suffix}": Reader(IMAGE, image_folder(suffix), read_data)
        for suffix in (".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".pgm")
    },
    "image, one by one": Reader(IMAGE, image_folder(".png"), read_items),
    "parquet": Reader(HUB, parquet, read_data),
    "parquet, as a stream": Reader(
        ("data/streaming.py: datasets.load_dataset_builder", "data/streaming.py: read_metadata"), parquet, read_stream
    ),
    **{
        f"saved table's {name}": Reader(("data/hub.py: datasets.load_from_disk",), arrow(name), read_data, takes=takes)
        for name, takes in (
            ("dataset_dict.json", ("a link to itself", "a link to nothing")),  # what lies beside it can be read, too
            ("train/state.json", ()),
            ("train/dataset_info.json", ()),
        )
    },
    "recording .aedat": Reader(
        ("data/recordings.py: file.read_bytes", "data/recordings.py: np.frombuffer"),
        recording(".aedat"),
        read_recording,
    ),
    "recording .npy": Reader(("data/recordings.py: np.load",), recording(".npy"), read_recording),
    "recording .bin": Reader(
        ("data/recordings.py: read_mnist_file",), recording(".bin"), read_recording, needs=("tonic",)
    ),
    "recording .aedat4": Reader(
        ("data/recordings.py: read_aedat4",), recording(".aedat4"), read_recording, needs=("tonic", "aedat")
    ),
    "trials of a search": Reader(
        ("search/bayes.py: RDBStorage", "search/bayes.py: optuna.create_study"),
        trials,
        read_trials,
        takes=("nothing in it", "a link to nothing"),
        needs=("optuna",),
    ),
    "NIR": Reader(
        ("export/interpreter.py: nir.read", "export/interpreter.py: h5py.File"), nir_file, read_nir, needs=("nir",)
    ),
}

NO_STRANGER: dict[str, str] = {
    "bench/command.py: ?.read_text": "/proc/cpuinfo",
    "engine/devices.py: ?.read_text": "/proc/cpuinfo",
    "recipebook.py: ?.read_text": "the package's own recipes",
    "sweep.py: ?.read_text": "the package's own experiments",
    "report/page.py: ?.read_text": "the package's own page",
    "engine/checkpoint.py: temporary.open": "writes",
    "engine/checkpoint.py: os.open": "a folder, to sync it",
    "engine/metrics.py: self.path.open": "writes",
    "engine/lock.py: os.open": "writes",
    "engine/lock.py: os.pread": "a hundred bytes for a message, without control characters",
    "architecture.py: ?.read_bytes": "for a hash, of weights that were just loaded",
    "results.py: ?.read_bytes": "copies an experiment's pictures that were just drawn",
    "report/runs.py: path.open": "metrics.csv, for the reader of CSV",
    "export/onnx_file.py: onnxruntime.InferenceSession": "what was just written",
    "data/images.py: load": "an argument of that name",
    "models/elsewhere.py: timm.create_model": "asks timm by its own names",
}
"""Calls that read nothing of a stranger's, and why."""


def buffered(content: object) -> bytes:
    """What ``torch.save`` makes of something."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
