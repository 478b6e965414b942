"""The membrane potential, worked out by hand (every number is a dyadic fraction, so float32 is exact)."""

import math
import re

import pytest
import torch
from torch import Tensor

import spikedistill as sd
from spikedistill.errors import UserError
from spikedistill.spiking import IF, LIF, PLIF, kernels

CURRENTS = (0.625, 0.75, 0.5, 1.5, -0.5, 1.25)

# neuron, spikes and membrane potentials after the reset, under CURRENTS
TRACES = {
    "hard": (LIF(), (0, 1, 0, 1, 0, 1), (0.625, 0.0, 0.5, 0.0, -0.5, 0.0)),
    "hard, strict": (LIF(fires_on=">"), (0, 1, 0, 1, 0, 0), (0.625, 0.0, 0.5, 0.0, -0.5, 1.0)),
    "soft": (
        LIF(reset="soft"),
        (0, 1, 0, 1, 0, 1),
        (0.625, 0.0625, 0.53125, 0.765625, -0.1171875, 0.19140625),
    ),
    "decay 0.25": (LIF(0.25), (0, 0, 0, 1, 0, 1), (0.625, 0.90625, 0.7265625, 0.0, -0.5, 0.0)),
    "threshold 0.5": (LIF(threshold=0.5), (1, 1, 1, 1, 0, 1), (0.0, 0.0, 0.0, 0.0, -0.5, 0.0)),
    "threshold 0.5, strict": (LIF(threshold=0.5, fires_on=">"), (1, 1, 0, 1, 0, 1), (0.0, 0.0, 0.5, 0.0, -0.5, 0.0)),
    "threshold 0.5, soft": (
        LIF(threshold=0.5, reset="soft"),
        (1, 1, 1, 1, 0, 1),
        (0.125, 0.3125, 0.15625, 1.078125, 0.0390625, 0.76953125),
    ),
    "IF": (IF(), (0, 1, 0, 1, 0, 0), (0.625, 0.0, 0.5, 0.0, -0.5, 0.75)),
    # one spike a step, however far above the threshold
    "IF, soft": (IF(reset="soft"), (0, 1, 0, 1, 0, 1), (0.625, 0.375, 0.875, 1.375, 0.875, 1.125)),
    "PLIF": (PLIF(), (0, 1, 0, 1, 0, 1), (0.625, 0.0, 0.5, 0.0, -0.5, 0.0)),
}

# reset, detached, currents of two steps, and the gradient of the number of spikes with respect to them. With decay 0.5
# and the triangle f of half-width 1: dx[1] = f(h[1]), dx[0] = f(h[0]) + f(h[1]) * 0.5 * dv[0]/dh[0], where dv[0]/dh[0]
# is 1 - s - h * f (hard), 1 - s (hard, detached), 1 - f (soft), 1 (soft, detached).
GRADIENTS = [
    ("hard", False, (0.75, 0.875), (0.9140625, 0.75)),
    ("hard", True, (0.75, 0.875), (1.125, 0.75)),
    ("soft", False, (0.75, 0.875), (0.84375, 0.75)),
    ("soft", True, (0.75, 0.875), (1.125, 0.75)),
    ("hard", False, (1.25, 0.75), (0.3984375, 0.75)),
    ("hard", True, (1.25, 0.75), (0.75, 0.75)),
    ("soft", False, (1.25, 0.75), (0.859375, 0.875)),
    ("soft", True, (1.25, 0.75), (1.1875, 0.875)),
]

NEURONS = {
    "LIF": LIF(0.25, 0.5, reset="soft", detach_reset=True, surrogate="arctan", width=0.7, fires_on=">"),
    "IF": IF(2.0, surrogate="rectangle"),
    "PLIF": PLIF(0.8, surrogate="sigmoid"),
}


def sequence(currents: tuple[float, ...]) -> Tensor:
    """``[T, B, C]`` with the same currents in every neuron."""
    return torch.tensor(currents)[:, None, None].expand(-1, 2, 3).clone()


@pytest.mark.parametrize("case", TRACES)
def test_membrane_potential_follows_the_trace(case: str) -> None:
    neuron, spikes, potentials = TRACES[case]
    v = torch.zeros(2, 3)
    for t, x in enumerate(sequence(CURRENTS)):
        s, v = kernels.plain_step(x, v, neuron.decay, neuron.dynamics)
        assert torch.equal(s, torch.full_like(s, spikes[t])), f"spike at step {t}"
        assert torch.equal(v, torch.full_like(v, potentials[t])), f"membrane potential at step {t}"


@pytest.mark.parametrize("case", TRACES)
def test_module_gives_the_spikes_of_the_trace_and_keeps_no_state(case: str) -> None:
    neuron, spikes, _ = TRACES[case]
    expected = sequence(tuple(float(s) for s in spikes))
    assert torch.equal(neuron(sequence(CURRENTS)), expected)
    assert torch.equal(neuron(sequence(CURRENTS)), expected)
    assert torch.equal(neuron(sequence(CURRENTS[:2])), expected[:2])


@pytest.mark.parametrize(("reset", "detached", "currents", "gradients"), GRADIENTS)
def test_input_gradient_by_hand(
    reset: str, detached: bool, currents: tuple[float, ...], gradients: tuple[float, ...]
) -> None:
    x = sequence(currents).requires_grad_()
    LIF(reset=reset, detach_reset=detached)(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, sequence(gradients), atol=1e-6, rtol=0)


def test_learned_decay_gradient_by_hand() -> None:
    # d(spikes)/d(decay) = f(h[1]) * v[0] = 0.75 * 0.75 in each of six neurons; the sigmoid's slope at 0 is 1/4
    neuron = PLIF(0.5)
    neuron(sequence((0.75, 0.875))).sum().backward()
    assert neuron.decay_logit is not None and neuron.decay_logit.grad is not None
    assert neuron.decay_logit.grad.item() == pytest.approx(6 * 0.75 * 0.75 / 4)


def test_membrane_potential_of_a_bfloat16_input_is_float32() -> None:
    # the sum of the first two currents needs 9 bits: bfloat16 would round it up to the threshold and fire
    x = torch.tensor([1 - 2**-8, 2**-9, 2**-9], dtype=torch.bfloat16)[:, None].requires_grad_()
    spikes = IF()(x)
    assert spikes.dtype == torch.bfloat16
    assert spikes.flatten().tolist() == [0, 0, 1]
    spikes.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


def test_float64_stays_float64() -> None:
    x = torch.tensor([0.5, 0.5 - 2**-40, 2**-40], dtype=torch.float64)[:, None]
    assert IF()(x).flatten().tolist() == [0, 0, 1]
    assert IF()(x).dtype == torch.float64


@pytest.mark.parametrize("kind", NEURONS)
def test_settings_make_the_same_neuron_again(kind: str) -> None:
    neuron = NEURONS[kind]
    again = LIF(**neuron.settings())  # type: ignore[arg-type]
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) + 0.5
    assert torch.equal(again(x), neuron(x))
    assert again.dynamics == neuron.dynamics
    assert again.settings() == pytest.approx(neuron.settings())


@pytest.mark.parametrize("kind", NEURONS)
def test_copy_has_parameters_of_its_own(kind: str) -> None:
    neuron = NEURONS[kind]
    copy = neuron.copy()
    assert copy.settings() == neuron.settings() and type(copy) is type(neuron)
    assert not {id(p) for p in copy.parameters()} & {id(p) for p in neuron.parameters()}


def test_only_a_learned_decay_is_a_parameter() -> None:
    # state-dict keys of an ANN and its SNN are the same because of this
    assert not LIF().state_dict() and not IF().state_dict()
    neuron = PLIF(0.8)
    assert list(neuron.state_dict()) == ["decay_logit"]
    assert neuron.settings()["decay"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 0.0}, "decay must lie in (0, 1], not 0.0"),
        ({"decay": 1.5}, "decay must lie in (0, 1], not 1.5"),
        ({"decay": float("nan")}, "decay must be a finite number, not nan"),
        ({"threshold": 0.0}, "threshold must be positive, not 0.0"),
        ({"threshold": float("nan")}, "threshold must be a finite number, not nan"),
        ({"reset": "sofd"}, "unknown neuron reset 'sofd'; did you mean 'soft'? (accepted: hard, soft)"),
        ({"fires_on": "=="}, "unknown neuron comparison '=='"),
        ({"surrogate": "triangel"}, "unknown surrogate 'triangel'; did you mean 'triangle'?"),
        ({"width": 0.0}, "surrogate width must be positive, not 0.0"),
        ({"width": -1.0}, "surrogate width must be positive, not -1.0"),
        ({"decay": 1.0, "learn_decay": True}, "decay must be below 1 where it is learned"),
    ],
)
def test_refuses_what_it_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        LIF(**settings)


def test_an_anns_weights_fit_a_network_whose_neurons_learn() -> None:
    ann = sd.create_model("2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=False)
    network = sd.create_model(
        "2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2, neuron=sd.PLIF(0.25)
    )
    network.load_state_dict(ann.state_dict())
    assert torch.equal(network.conv1.weight, ann.conv1.weight)
    learned = [value for name, value in network.state_dict().items() if name.endswith("decay_logit")]
    assert len(learned) == 3 and all(torch.sigmoid(value) == pytest.approx(0.25) for value in learned)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": "x"}, "surrogate width must be a finite number, not 'x'"),
        ({"width": math.inf}, "surrogate width must be a finite number, not inf"),
        ({"surrogate": None}, "unknown surrogate 'None'"),
        ({"decay": torch.tensor([0.5, 0.5])}, "neuron decay must be a finite number"),
        ({"threshold": math.inf}, "neuron threshold must be a finite number, not inf"),
    ],
)
def test_what_is_no_number_is_refused_in_a_sentence(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sd.LIF(**settings)
