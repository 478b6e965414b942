"""Optimised networks: the same function, the same keys, less memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.errors import UserError
from spikedistill.models.features import taps
from spikedistill.models.fuse import FusedBatchNorm, LeanConv, optimise, restore
from spikedistill.spiking import LIF, PLIF, compiling, deferred
from spikedistill.spiking.deferred import Spikes, settle

MODELS = {
    "2conv": {"in_channels": 1, "width": 8, "image_size": 12},
    "lenet5": {"in_channels": 1, "image_size": 16},
    "vgg11": {"in_channels": 3, "image_size": 32},
    "vgg11 imagenet": {"in_channels": 3, "image_size": 32, "width": 8, "stem": "imagenet"},
    "resnet18": {"in_channels": 3, "stem": "cifar", "width": 8},
    "sew-resnet18": {"in_channels": 3, "stem": "cifar", "width": 8},
    "ms-resnet18": {"in_channels": 3, "stem": "cifar", "width": 8},
    "preactresnet20": {"in_channels": 3},
}


@pytest.fixture(autouse=True)
def always_and_uncompiled(monkeypatch):
    def call(function, tensors, constants, inline=False):
        return function(*tensors, **constants)

    monkeypatch.setattr(compiling, "call", call)
    with compiling.choose("fused"):
        yield


def network(name: str, neuron: LIF | None = None, timesteps: int = 2) -> nn.Module:
    torch.manual_seed(0)
    options = {"num_classes": 5, "spiking": True, "timesteps": timesteps, "neuron": neuron or LIF(), **MODELS[name]}
    model = sd.create_model(name.split()[0], **options)
    return model.double()


def images(name: str, batch: int = 3) -> Tensor:
    side = MODELS[name].get("image_size", 12)
    return torch.randn(batch, MODELS[name]["in_channels"], side, side, dtype=torch.float64)


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor], int]:
    """Logits, gradients, and bytes that the backward pass keeps beside parameters."""
    kept: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        if not isinstance(t, nn.Parameter):
            kept[t.untyped_storage().data_ptr()] = t
        return t

    model.zero_grad()
    torch.manual_seed(1)  # of dropout's masks
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        logits = model(x)
        loss = F.cross_entropy(logits, torch.arange(len(logits)) % 5)
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    return logits.detach(), grads, sum(t.untyped_storage().nbytes() for t in kept.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_same_step_with_less_memory(name):
    plain, x = network(name), images(name)
    state = copy.deepcopy(plain.state_dict())
    with compiling.choose("plain"):
        logits, grads, most = step(plain, x)
        after = copy.deepcopy(plain.state_dict())
        inferred = plain.eval()(x)
    fast_bytes = most
    for memory in ("fast", "lean"):
        model = optimise(network(name), memory)
        assert model.state_dict().keys() == state.keys()
        ours, our_grads, kept = step(model, x)
        torch.testing.assert_close(ours, logits, rtol=0, atol=1e-12)
        for key, grad in grads.items():
            torch.testing.assert_close(our_grads[key], grad, rtol=1e-9, atol=1e-11, msg=f"{memory} {key}")
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, after[key])
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x), inferred, rtol=0, atol=1e-12)
        assert kept < most and kept <= fast_bytes
        fast_bytes = kept
    assert type(restore(model)) is type(plain) and not any(isinstance(m, FusedBatchNorm) for m in model.modules())


def test_a_learned_decay_and_sequences():
    x = torch.randn(4, 2, 3, 12, 12, dtype=torch.float64)
    results = []
    for memory in (None, "lean"):
        model = network("resnet18", PLIF())
        with compiling.choose("plain" if memory is None else "fused"):
            results.append(step(model if memory is None else optimise(model, memory), x))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for key, grad in results[0][1].items():
        torch.testing.assert_close(results[1][1][key], grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("side", ["before", "after"])
def test_taps_see_plain_features_with_gradients(side):
    results = []
    for memory in (None, "lean"):
        model, x = network("2conv"), images("2conv")
        if memory is not None:
            optimise(model, memory)
        with compiling.choose("plain" if memory is None else "fused"), taps(model, model.stages, side) as tap:
            logits = model(x)
            features = [settle(value) for value in tap.take().values()]
        loss = logits.square().sum() + sum((value * value.cos()).mean() for value in features)
        model.zero_grad()
        loss.backward()
        results.append([model.conv1.weight.grad, model.bn2.weight.grad])
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(plain, ours)


def test_spikes_are_an_ordinary_tensor_to_everybody_else():
    model = optimise(network("2conv"))
    seen: list[Tensor] = []
    model.relu1.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(images("2conv"))
    (spikes,) = seen
    assert isinstance(spikes, Spikes) and spikes.shape == (6, 8, 12, 12) and spikes.dtype == torch.float64
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(1.0 - spikes, 1.0 - settle(spikes)) and type(spikes.mean()) is Tensor
    assert torch.equal(torch.stack([spikes, spikes])[1], settle(spikes))


def test_an_autograd_function_cannot_lose_the_gradient():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return settle(x) * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    model = optimise(network("2conv"))
    deferred_spikes = model.encode(model.stem(images("2conv")), True)
    assert isinstance(deferred_spikes, deferred.Deferred)
    with pytest.raises(RuntimeError, match="settle"):
        Double.apply(deferred_spikes).sum().backward()


def test_under_autocast_convolutions_keep_bits():
    model, x = network("resnet18").float(), images("resnet18").float()
    optimise(model, "lean")
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    logits.float().square().sum().backward()
    assert isinstance(model.layer1[0].conv1, LeanConv)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in model.parameters())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_as_a_whole():
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), None, nn.MaxPool2d(2), nn.Conv2d(8, 2, 3)]
    source = network("2conv").float()
    layers[2] = source.relu1
    torch.manual_seed(0)
    model = optimise(nn.Sequential(*layers), "lean")
    x = torch.randn(4, 1, 8, 8)
    expected = model(x)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), expected, rtol=1e-4, atol=1e-4)


def test_settings_are_exchanged_and_wrong_ones_refused():
    model = optimise(optimise(network("2conv"), "lean"), "fast")
    assert type(model.conv1) is nn.Conv2d
    with pytest.raises(UserError, match="lean"):
        optimise(model, "leen")
    ann = sd.create_model("2conv", num_classes=5, in_channels=1)
    assert type(optimise(ann).bn1) is nn.BatchNorm2d
