import pytest
import torch
from torch import nn

from spikedistill.errors import UserError
from spikedistill.models import create_model
from spikedistill.recipe import InitSettings
from spikedistill.spiking import LIF
from spikedistill.transfer import TRANSFERS, plan_resample, resample_weights
from spikedistill.transfer.resample import loop_interpolate


def network(name, spiking=False, **options):
    made = create_model(name, num_classes=10, in_channels=3, spiking=spiking, **{"width": 4, **options})
    generator = torch.Generator().manual_seed(1 + spiking)
    for value in made.state_dict().values():
        if value.dim() > 1:
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        else:
            value.fill_(7)
    return made


def by_name(report):
    assert len({entry.name for entry in report}) == len(report)
    return {entry.name: entry for entry in report}


def test_loop_interpolation_on_a_hand_made_example():
    source = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert loop_interpolate(source, (5, 4)).tolist() == [
        [1, 2, 3, 1],
        [4, 5, 6, 4],
        [1, 2, 3, 1],
        [4, 5, 6, 4],
        [1, 2, 3, 1],
    ]
    assert loop_interpolate(source, (1, 2)).tolist() == [[1, 2]]
    assert loop_interpolate(source[0], (5,)).tolist() == [1, 2, 3, 1, 2]
    kernels = source.view(2, 3, 1, 1).expand(2, 3, 3, 3)
    wide = loop_interpolate(kernels, (5, 4, 3, 3))
    assert torch.equal(wide[..., 0, 2], loop_interpolate(source, (5, 4)))
    assert loop_interpolate(torch.tensor(3), ()).item() == 3


@pytest.mark.parametrize("width", [4, 3, 6])
def test_r34_to_r18_accounts_for_every_tensor(width):
    teacher, student = network("resnet34"), network("resnet18", spiking=True, width=width)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    theirs = {name: value.clone() for name, value in teacher.state_dict().items()}
    report = resample_weights(teacher, student)
    assert [entry.name for entry in report] == list(before)
    for entry in report:
        value = student.state_dict()[entry.name]
        assert entry.shape == tuple(value.shape)
        if entry.action == "left":
            assert entry.name in ("fc.weight", "fc.bias") and "random" in entry.reason and entry.source is None
            assert torch.equal(value, before[entry.name])
            continue
        # Names are the same in both networks and block j is block j, so each tensor comes from its namesake.
        assert entry.source == entry.name and entry.source_shape == tuple(theirs[entry.name].shape)
        assert entry.action == ("copied" if entry.shape == entry.source_shape else "resampled")
        expected = theirs[entry.name]
        for dim, size in enumerate(value.shape[:2]):
            expected = torch.stack([expected.select(dim, i % expected.shape[dim]) for i in range(size)], dim)
        assert torch.equal(value, expected)
    actions = {entry.action for entry in report}
    assert actions == ({"copied", "left"} if width == 4 else {"copied", "resampled", "left"})
    assert all(torch.equal(value, theirs[name]) for name, value in teacher.state_dict().items())


def test_the_report_has_no_entry_beside_the_state_dict_and_neurons_are_left():
    student = network("resnet18", spiking=True, neuron=LIF(learn_decay=True))
    report = by_name(resample_weights(network("resnet34"), student))
    assert set(report) == set(student.state_dict())
    decays = [name for name in report if name.endswith("decay_logit")]
    assert len(decays) == 17
    assert all(report[name].action == "left" and "neuron" in report[name].reason for name in decays)


def test_shortcuts_are_a_switch():
    teacher = network("resnet34")
    for shortcuts in (True, False):
        student = network("resnet18", spiking=True)
        start = student.state_dict()["layer2.0.downsample.0.weight"].clone()
        transfer = TRANSFERS["resample"](teacher, student, InitSettings(kind="resample", shortcuts=shortcuts))
        projections = [e for name, e in by_name(transfer).items() if "downsample" in name]
        assert len(projections) == 3 * 6
        assert {e.action for e in projections} == {"copied" if shortcuts else "left"}
        value = student.state_dict()["layer2.0.downsample.0.weight"]
        assert torch.equal(value, teacher.state_dict()["layer2.0.downsample.0.weight"] if shortcuts else start)


def test_a_student_like_its_teacher_answers_like_it_but_for_the_classifier():
    teacher, student = network("resnet34"), network("resnet34")
    resample_weights(teacher, student)
    student.fc.load_state_dict(teacher.fc.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(student.eval()(x), teacher.eval()(x))


def test_blocks_and_stages_that_the_teacher_lacks_are_left():
    deeper = by_name(plan_resample(network("resnet18"), network("resnet34", spiking=True)))
    assert deeper["layer1.1.conv1.weight"].action == "copied"
    assert deeper["layer1.2.conv1.weight"].reason == "the teacher has no stage1.block3"
    assert deeper["layer3.5.bn2.running_var"].reason == "the teacher has no stage3.block6"
    longer = by_name(plan_resample(network("resnet20"), network("resnet18", spiking=True)))
    assert longer["layer3.1.conv2.weight"].source == "layer3.1.conv2.weight"
    assert longer["layer4.0.conv1.weight"].reason == "the teacher has no stage4.block1"


def test_a_kernel_of_another_size_is_left_with_its_batchnorm():
    report = by_name(plan_resample(network("resnet34", stem="imagenet"), network("resnet18", spiking=True)))
    assert report["conv1.weight"].action == report["bn1.running_mean"].action == "left"
    assert "[4, 3, 7, 7]" in report["conv1.weight"].reason
    assert report["layer1.0.conv1.weight"].action == "copied"


@pytest.mark.parametrize(
    ("teacher", "student"), [("resnet50", "resnet18"), ("resnet18", "resnet50"), ("wrn16-2", "resnet18")]
)
def test_blocks_of_another_kind_are_refused(teacher, student):
    made = network(student, spiking=True)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with pytest.raises(UserError, match=r"any block of the student.*another kind"):
        resample_weights(network(teacher), made)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("vgg16", "vgg11"),
        ("resnet101", "resnet50"),
        ("wrn28-4", "wrn16-2"),
        ("ms-resnet34", "ms-resnet18"),
        ("resnet34", "sew-resnet18"),
        ("resnet34", "resnet19"),
    ],
)
def test_other_families_take_block_from_block(teacher, student):
    ours = network(student, spiking=True)
    report = by_name(resample_weights(network(teacher, width=8), ours))
    assert set(report) == set(ours.state_dict())
    left = {name for name, entry in report.items() if entry.action == "left"}
    assert all(isinstance(ours.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in left)


def test_vgg_maps_convolutions_by_stage_and_place():
    report = by_name(plan_resample(network("vgg16"), network("vgg11", spiking=True)))
    # VGG-11: 64 M 128 M 256 256 M ...; VGG-16: 64 64 M 128 128 M 256 256 256 M ...
    assert report["features.4.weight"].source == "features.7.weight"
    assert report["features.8.weight"].source == "features.14.weight"
    assert report["features.12.running_var"].source == "features.18.running_var"
    assert report["classifier.0.weight"].action == "left"
    options = {"stem": "imagenet", "image_size": 32}
    report = by_name(plan_resample(network("vgg16", **options), network("vgg11", spiking=True, **options)))
    assert report["features.8.bias"].source == "features.14.bias"
    assert report["classifier.6.weight"].action == "left"


def test_a_transformer_takes_blocks_too():
    teacher = network("spikformer-tiny", width=32, depth=3)
    student = network("spikformer-tiny", spiking=True, width=16, depth=2)
    report = by_name(resample_weights(teacher, student))
    assert report["encoders.1.attention.q.conv.weight"].source == "encoders.1.attention.q.conv.weight"
    assert {name for name, entry in report.items() if entry.action == "left"} == {"fc.weight", "fc.bias"}


def test_a_public_resnet_needs_no_attribute_blocks():
    class Public(nn.Module):
        def __init__(self):
            super().__init__()
            inner = network("resnet34")
            for name, module in inner.named_children():
                self.add_module(name, module)

    report = by_name(plan_resample(Public(), network("resnet18", spiking=True)))
    assert sum(entry.source is not None for entry in report.values()) == len(report) - 2


def test_a_network_whose_blocks_cannot_be_told_is_refused():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    with pytest.raises(UserError, match=r"blocks of the teacher \(Sequential\)"):
        plan_resample(plain, network("resnet18"))
