import pytest
import torch

from spikedistill.errors import UserError
from spikedistill.models import create_model
from spikedistill.spiking import LIF
from spikedistill.transfer import copy_weights


def network(name, **options):
    return create_model(name, num_classes=10, in_channels=1, width=4, **options)


def test_every_tensor_is_copied_and_the_neurons_are_left():
    teacher = network("resnet14")
    student = network("resnet14", spiking=True, neuron=LIF(learn_decay=True))
    report = {entry.name: entry for entry in copy_weights(teacher, student)}
    assert set(report) == set(student.state_dict())
    for name, value in student.state_dict().items():
        assert (report[name].action == "copied") == (name in teacher.state_dict())
        if name in teacher.state_dict():
            assert torch.equal(value, teacher.state_dict()[name])


def test_another_architecture_is_refused_before_anything_is_copied():
    student = network("resnet14", spiking=True)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(UserError, match=r"layer1\.2\.conv1\.weight.*resample"):
        copy_weights(network("resnet20"), student)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
