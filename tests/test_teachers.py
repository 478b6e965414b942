"""Teachers from elsewhere: normalised differently, weights in files, networks of timm."""

import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import spikedistill as sd
from spikedistill.assembly import assemble
from spikedistill.errors import UserError
from spikedistill.models.rescale import see_as
from spikedistill.recipebook import read_recipe
from spikedistill.run import train

SMALL = ["student.width=4", "epochs=1", "data.subset=64", "data.test_subset=32"]


def recipe(*overrides: str):
    return read_recipe("digits-2conv-kdsnn-response", [*SMALL, *overrides])


def test_a_teacher_sees_the_images_it_was_trained_on():
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    given, wanted = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)), ((0.1, 0.2, 0.3), (1.0, 0.5, 2.0))

    def normalised(normalisation):
        mean, std = (torch.tensor(part, dtype=torch.float64).view(-1, 1, 1) for part in normalisation)
        return (pixels - mean) / std

    network = see_as(nn.Identity(), given, wanted)
    torch.testing.assert_close(network(normalised(given)), normalised(wanted))
    sequence = normalised(given).expand(5, -1, -1, -1, -1)
    torch.testing.assert_close(network(sequence)[3], normalised(wanted))


def test_a_run_folders_teacher_keeps_its_own_normalisation(tmp_path):
    """The same pixels give the same logits, though the student's data are normalised otherwise."""
    other = ["data.mean=[0.5]", "data.std=[0.25]"]
    folder = tmp_path / "ann"
    train(read_recipe("digits-2conv-ann", [*SMALL, f"out={folder}"]), verbose=False)
    alike = assemble(recipe(f"teacher.path={folder}"))
    unlike = assemble(recipe(f"teacher.path={folder}", *other))
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (alike.data.info.mean, alike.data.info.std))
    pixels = torch.rand(3, 1, 8, 8)
    assert alike.teacher is not None and unlike.teacher is not None
    expected = alike.teacher((pixels - mean) / std)
    torch.testing.assert_close(unlike.teacher((pixels - 0.5) / 0.25), expected, rtol=1e-4, atol=1e-4)
    assert (unlike.teacher((pixels - mean) / std) - expected).abs().max() > 1e-2


def test_weights_in_a_file_may_say_what_they_were_normalised_with(tmp_path):
    ann = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4).eval()
    file = tmp_path / "ann.safetensors"
    save_file(ann.state_dict(), file)
    parts = assemble(recipe("teacher.width=4", f"teacher.path={file}", "teacher.mean=[0.0]", "teacher.std=[1.0]"))
    pixels = torch.rand(3, 1, 8, 8)
    info = parts.data.info
    assert parts.teacher is not None
    torch.testing.assert_close(parts.teacher((pixels - info.mean[0]) / info.std[0]), ann(pixels), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="3 means"):
        assemble(recipe("teacher.width=4", f"teacher.path={file}", "teacher.mean=[0.0,0.0,0.0]"))


class Small(nn.Module):
    """What the stand-in for timm makes."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(in_chans, 4, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(4, num_classes)
        self.pretrained_cfg = {"mean": (0.25,), "std": (0.5,)}

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def timm(monkeypatch):
    """A stand-in (timm is an extra that cannot be installed beside a CPU-only torch); keeps what was asked of it."""
    asked = []

    def create_model(name, *, pretrained, in_chans, num_classes):
        asked.append((name, pretrained))
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})")
        torch.manual_seed(0)
        return Small(num_classes, in_chans)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return asked


def test_a_teacher_from_timm_with_its_own_weights(timm):
    parts = assemble(recipe("teacher.model=timm/small", "teacher.width=null", "teacher.path=pretrained"))
    assert timm == [("small", True)] and parts.teacher is not None
    torch.manual_seed(0)
    theirs = Small(10, 1)
    pixels = torch.rand(2, 1, 8, 8)
    info = parts.data.info
    ours = parts.teacher((pixels - info.mean[0]) / info.std[0])
    torch.testing.assert_close(ours, theirs((pixels - 0.25) / 0.5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["teacher.model=timm/none", "teacher.path=pretrained"], "timm cannot make 'none'"),
        (["teacher.model=timm/small"], "teacher.path=pretrained"),
        (["teacher.model=2conv", "teacher.path=pretrained"], "models of timm"),
    ],
)
def test_timms_mistakes_are_sentences(timm, overrides, said):
    with pytest.raises(UserError, match=said):
        assemble(recipe("teacher.width=null", *overrides))


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'spikedistill\[timm\]'"):
        assemble(recipe("teacher.model=timm/resnet18", "teacher.width=null", "teacher.path=pretrained"))


def test_a_network_of_timm_is_no_student():
    with pytest.raises(UserError, match="spikify"):
        sd.create_model("timm/resnet18", num_classes=10, in_channels=3, spiking=True)
