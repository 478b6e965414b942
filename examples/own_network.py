"""A network of one's own, pictures of one's own: from a trained ANN to an SNN that its ANN has taught, and to a file.

    python examples/own_network.py [IMAGE_FOLDER] [--epochs N] [--out DIR]

The network below is written the way people write networks: ReLUs are functions, shortcuts are lambdas, nothing in it
knows about spikes. IMAGE_FOLDER holds train/<class>/*.png and test/<class>/*.png, all pictures of one size; without
one, scikit-learn's handwritten digits are written into such a folder first. Takes about a minute on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.data import DataSettings, Loader, open_data
from spikedistill.evaluation.accuracy import evaluate


class Block(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.shortcut = lambda x: F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, c_out - c_in))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class MyNetwork(nn.Module):
    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.layers = nn.ModuleList(
            [Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1)]
        )
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        for layer in self.layers:
            x = layer(x)
        x = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        return self.fc(F.dropout(x, 0.1, self.training))


def main(images: Path | None, out: Path, epochs: int = 8) -> dict[str, float]:
    """Trains the ANN, converts it, distils it, exports it. Returns the accuracies in percent."""
    folder = str(images if images is not None else write_digits(out / "images"))
    data = open_data(DataSettings(path=folder), seed=0)
    training = {"epochs": epochs, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.004}, "verbose": False}

    torch.manual_seed(0)
    network = MyNetwork(data.info.shape[0], len(data.info.classes))
    ann = sd.distill(None, network, folder, method="ann", out=out / "ann", **training)

    batches = Loader(data.train, data.info, batch_size=256, device="cpu", shuffle=True, seed=0).epoch(0)
    some, _ = next(iter(batches))
    neuron = sd.IF(reset="soft", surrogate="arctan")
    snn = sd.spikify(ann.student, timesteps=4, neuron=neuron, example_input=some, calibration=some)
    for replacement in snn.replacements:
        threshold = replacement.neuron["threshold"]
        print(
            f"  {replacement.path:<20} {replacement.activation:<12} {replacement.shape!s:<14} threshold {threshold:.2f}"
        )

    test = Loader(data.test, data.info, batch_size=250, device="cpu", shuffle=False, seed=0)
    accuracies = {"ANN": ann.summary["student_accuracy"]}
    for timesteps in (4, 8, 16, 32):
        snn.timesteps = timesteps
        accuracies[f"SNN, conversion only, T={timesteps}"] = evaluate(snn, test, len(data.info.classes)).accuracy

    snn.timesteps = 4
    method = {"name": "kdsnn-feature", "alpha": 0.1}
    run = sd.distill(ann.student, snn, folder, method=method, out=out / "snn", **training)
    accuracies["SNN, distilled, T=4"] = run.summary["student_accuracy"]

    pictures = torch.cat([batch for batch, _ in test.epoch(0)])
    exported = sd.export_nir(run.student, out / "own_network.nir", pictures, run=run.folder)
    chip = sd.read_nir(exported.path)
    accuracies["NIR file, T=4"] = evaluate(chip, test, len(data.info.classes)).accuracy
    for name, value in accuracies.items():
        print(f"{name:<28} {value:6.2f} %")
    for name, network in {"ANN": ann.student, "SNN": run.student}.items():
        print(f"energy of computation, {name:<5} {sd.energy(network, pictures).computation / 1e6:6.3f} µJ an image")
    print(f"{exported.path}: {exported.agreement}; what it is: {exported.card.name}")
    return accuracies


def write_digits(folder: Path) -> Path:
    """The digits as an image folder."""
    from PIL import Image

    from spikedistill.data.digits import read_digits

    for part, pictures in zip(("train", "test"), read_digits(), strict=True):
        for number, (pixels, label) in enumerate(zip(pictures.images, pictures.labels, strict=True)):
            path = folder / part / str(int(label)) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0].numpy()).save(path)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="own-network-"))
    try:
        main(arguments.images, out, arguments.epochs)
    except sd.UserError as error:
        raise SystemExit(f"own_network.py: {error}") from None
    print(f"runs: {out}")
