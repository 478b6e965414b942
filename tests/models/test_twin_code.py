"""``spikify`` on code with habits that a tracer does not expect, and what it says where they are in the way."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikedistill as sd
from spikedistill.models.calibrate import calibrate
from spikedistill.models.patched import FACTORIES, NUMBERS_FIRST, SPECIAL

IMAGES = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def scripted(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: it is deprecated, and in everybody's code
        return torch.jit.script(function)


def _swish(x):
    return x * torch.sigmoid(x)


SWISH = scripted(_swish)
LOADED = torch.jit.CompilationUnit("def f(x):\n    return x * 2\n").f


class Does(nn.Module):
    """Two layers, and between them whatever ``function`` does with the network and the maps."""

    def __init__(self, function=lambda _, x: x):
        super().__init__()
        self.function, self.fc1, self.fc2 = function, nn.Linear(6, 8), nn.Linear(8, 4)
        self.bn, self.n = nn.BatchNorm1d(8), None
        self.features = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())

    def forward(self, x):
        return self.fc2(self.function(self, F.relu(self.bn(self.fc1(x)))))


def twin_of(network: nn.Module, **settings) -> nn.Module:
    return sd.spikify(network, 2, sd.IF(threshold=0.2), example_input=IMAGES, **settings)


def same(ann: nn.Module, network: nn.Module, training: bool = False) -> None:
    answers = []
    for each in (ann, network):
        torch.manual_seed(0)
        answers.append(each.train(training)(IMAGES))
    torch.testing.assert_close(*answers)


@pytest.mark.filterwarnings("ignore:neurons take the place")
def test_a_scripted_function_is_the_function_that_it_was_made_from():
    """What poses as a tensor ends the process in TorchScript."""
    network = Does(lambda _, x: SWISH(x - 0.1))
    called = torch.jit.ScriptFunction.__call__
    twin = twin_of(network)
    assert [one.activation for one in twin.replacements] == ["F.relu", "x * sigmoid(x)"]
    assert torch.jit.ScriptFunction.__call__ == called
    same(twin.to_ann(), network)
    with pytest.raises(sd.UserError, match=r"Does: it calls the TorchScript function 'f'.*the Python function"):
        twin_of(Does(lambda _, x: LOADED(x)))


def test_a_scripted_function_in_an_attribute_is_refused_by_its_path():
    network = Does()
    network.features[1].act = SWISH
    with pytest.raises(sd.UserError, match=r"'features\.1\.act': it cannot be copied.*Python function that it was"):
        twin_of(network)
    network = Does()
    network.act = SWISH
    with pytest.raises(sd.UserError, match="at 'act': it cannot be copied"):
        twin_of(network)


FUNCTIONS = {
    "pow": lambda x: torch.pow(x, 3.0),
    "remainder": lambda x: torch.remainder(x, 2.0),
    "xlogy": lambda x: torch.xlogy(x + 1, 2.0),
    "float_power": lambda x: torch.float_power(x, 2.0).float(),
    "result_type": lambda x: x.to(torch.result_type(x, 1.0)),
    "special": lambda x: torch.special.xlog1py(x, 2.0),
    "isin": lambda x: x * torch.isin(x, 0.0),
    "where": lambda x: torch.where(x > 0.5, x, 2.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore:these steps stay analogue")
def test_functions_of_a_tensor_or_a_number_are_recorded(name):
    """They too end the process: torch looks for the number in what poses as a tensor."""
    network = Does(lambda _, x: FUNCTIONS[name](x))
    same(twin_of(network).to_ann(), network)


def test_every_function_that_takes_a_number_first_is_known():
    first = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::") and schema.arguments and str(schema.arguments[0].type) == "number"
        if any(str(argument.type) == "Tensor" and not argument.kwarg_only for argument in schema.arguments[1:])
    }
    plain = {name for name in first if hasattr(torch, name) and not name.startswith("_")}
    assert plain <= {*NUMBERS_FIRST, *FACTORIES, "logspace"}
    special = {name.removeprefix("special_") for name in first if name.startswith("special_")}
    assert special <= {*SPECIAL}


def remembered(network, x):
    """A table for the size of the images, made at the first call."""
    if network.n != x.size(1):
        network.n, network.cos = x.size(1), torch.arange(x.size(1)) / 8
    return x * network.cos


def registered(network, x):
    if not hasattr(network, "pe"):
        network.register_buffer("pe", torch.ones(8))
    return x + network.pe


def kept(network, x):
    """What the last call computed, in training: the trace of one mode would meet the other's."""
    last = getattr(network, "last", None)
    network.last = x
    return x if last is None or not network.training else x + last


def test_a_table_made_at_the_first_call_is_a_part_of_the_network():
    network = Does(remembered)
    twin = twin_of(network)
    assert network.n is None, "the network stays as it is"
    same(twin.to_ann(), network)
    same(twin_of(network).to_ann(), network)


def test_a_buffer_registered_in_forward_is_refused_until_it_is_there():
    network = Does(registered).eval()
    with pytest.raises(sd.UserError, match="'pe': the network registers this while it answers; call the network once"):
        twin_of(network)
    network(IMAGES)
    twin = twin_of(network)
    assert list(twin.state_dict()) == list(network.state_dict())
    same(twin.to_ann(), network)


def test_what_goes_from_call_to_call_is_refused():
    with pytest.raises(sd.UserError, match="Does: it keeps something that it computed in an attribute"):
        twin_of(Does(kept))


class Extra(Does):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


def test_a_state_of_more_than_tensors_is_refused_at_the_root_alone():
    with pytest.raises(sd.UserError, match="Extra: its state dict holds more than tensors"):
        twin_of(Extra())
    network = nn.Sequential(Extra(), nn.Linear(4, 3))
    twin = twin_of(network)
    twin.load_state_dict(network.state_dict())
    same(twin.to_ann(), network)


@pytest.mark.parametrize(
    ("neuron", "given"),
    [
        (sd.LIF, "'LIF' itself; call it: sd.LIF()"),
        (sd.IF, "'IF' itself"),
        (nn.ReLU(), "ReLU()"),
        ("LIF", "'LIF'"),
    ],
)
def test_a_neuron_must_be_one(neuron, given):
    with pytest.raises(sd.UserError) as refused:
        sd.spikify(Does(), neuron=neuron, example_input=IMAGES)
    assert f"not {given}" in str(refused.value)
    with pytest.raises(sd.UserError, match="neuron must be"):
        twin_of(Does()).to_ann().to_snn(2, neuron)


def test_batches_of_something_else_are_refused():
    with pytest.raises(sd.UserError, match=r"was given a dict; pick them out: .batch\['image'\] for batch"):
        calibrate(twin_of(Does()), [{"image": IMAGES}])


def test_a_twin_is_saved_by_its_weights(tmp_path):
    twin = twin_of(Does())
    for save in (lambda: torch.save(twin, tmp_path / "twin.pt"), lambda: pickle.dumps(twin)):
        with pytest.raises(sd.UserError, match=r"cannot be saved whole; save its weights, torch.save.twin.state_dict"):
            save()
    assert copy.deepcopy(twin)(IMAGES).equal(twin(IMAGES))


@pytest.mark.parametrize(
    "drop",
    [
        lambda p: nn.AlphaDropout(p),
        lambda p: nn.FeatureAlphaDropout(p),
        lambda p: Lambda(lambda m, x: F.alpha_dropout(x, p, m.training)),
        lambda p: Lambda(lambda m, x: F.feature_alpha_dropout(x, p, m.training)),
        lambda p: nn.Dropout(p),
    ],
    ids=["module", "feature module", "function", "feature function", "plain"],
)
def test_alpha_dropout_is_itself_in_the_ann_and_one_mask_of_zeros_in_the_snn(drop):
    network = nn.Sequential(nn.Conv1d(6, 8, 1), nn.SELU(), drop(0.5), nn.Flatten())
    images = torch.randn(4, 6, 5)
    with pytest.warns(UserWarning, match="negative values are lost"):
        twin = sd.spikify(network, 3, sd.IF(threshold=0.01), example_input=images)
    torch.manual_seed(0)
    expected = network.train()(images)
    torch.manual_seed(0)
    torch.testing.assert_close(twin.to_ann().train()(images), expected)
    torch.nn.init.constant_(twin.get_submodule("0").bias, 9.0)
    steps = twin.train()(images, per_step=True)
    assert set(steps.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(steps, steps[:1].expand_as(steps))
    again = twin.to_ann().to_snn(3, sd.IF(threshold=0.01)).train()(images)
    assert set(again.unique().tolist()) == {0.0, 2.0}


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Frozen(Does):
    """BatchNorm that is never trained, as in detectors."""

    def train(self, mode=True):
        super().train(mode)
        self.bn.eval()
        return self


@pytest.mark.parametrize("wrap", [lambda x: x, nn.Sequential], ids=["root", "inside"])
def test_what_a_network_never_trains_its_twin_does_not_either(wrap):
    network = wrap(Frozen())
    twin = twin_of(network)
    for each in (twin.train(), twin.to_ann().train(), copy.deepcopy(twin).eval().train()):
        norm = next(module for module in each.modules() if isinstance(module, nn.BatchNorm1d))
        assert each.training
        assert not norm.training
        each(IMAGES)
        assert norm.num_batches_tracked == 0
    same(twin.to_ann(), network, training=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_networks_are_refused_by_what_would_do():
    network = Does()
    with pytest.raises(sd.UserError, match=r"OptimizedModule: it was compiled by torch.compile.*\._orig_mod"):
        twin_of(torch.compile(network, backend="eager"))
    network.features = torch.compile(network.features, backend="eager")
    with pytest.raises(sd.UserError, match=r"'features' \(OptimizedModule\): it was compiled"):
        twin_of(network)


def test_a_slice_of_registered_layers_is_looked_into():
    network = Does(lambda m, x: m.features[2:](m.features[:2](x)))
    twin = twin_of(network)
    assert [one.path for one in twin.replacements] == ["spikes.0", "features.1", "features.3"]
    same(twin.to_ann(), network)
    elsewhere = nn.Linear(8, 8)
    with pytest.raises(sd.UserError, match="it calls a Sequential with weights that is no sub-module of the network"):
        twin_of(Does(lambda m, x: nn.Sequential(elsewhere, m.features[1])(x)))


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), Lambda(lambda _, x: x.add_(1.0))], ids=["relu", "add"])
def test_the_example_stays_as_it_is(first):
    network, example = nn.Sequential(first, nn.Linear(6, 4), nn.ReLU()), IMAGES.clone()
    twin = sd.spikify(network, example_input=example)
    assert torch.equal(example, IMAGES)
    torch.testing.assert_close(twin.to_ann()(IMAGES), network(IMAGES.clone()))
