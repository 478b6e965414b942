"""Joint A-SNN: losses against their formulas, what is detached, the ablation's switches, and two plain networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from spikedistill import LIF
from spikedistill.engine.optimisation import OptimizerSettings, make_optimizer
from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.joint import JointASNN, summed_cross_entropy, summed_divergence, summed_squared_distance

NOW = Progress(0, 2)

# Table 4 from the third row on; its first two are other methods.
ROWS = {
    "ce+kld": JointASNN.Settings(norm=0.0, factorise=False),
    "ce+kld+norm": JointASNN.Settings(factorise=False),
    "factorisation": JointASNN.Settings(ce=False, kld=0.0, norm=0.0),
    "all": JointASNN.Settings(),
}


def joint(build, images: Tensor, settings: JointASNN.Settings | None = None, model: str = "resnet14", **options):
    student, ann = build(model, spiking=True, **options), build(model, seed=1, **options)
    torch.manual_seed(2)
    return JointASNN(student, ann, settings or JointASNN.Settings(), images[:2]).train()


def train(method: JointASNN, images: Tensor, labels: Tensor, steps: int = 2) -> list[float]:
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    totals = []
    for _ in range(steps):
        _, losses = method(images, labels, NOW)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(total.item())
    return totals


def test_losses_equal_float64_references() -> None:
    generator = torch.Generator().manual_seed(0)
    snn, ann = (torch.randn(4, 6, 5, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 1, 4, 2, 2, 3])
    z, a = snn.double(), ann.double()
    ce = kl = norm = 0.0
    for i in range(4):
        for b in range(6):
            p, q = torch.softmax(a[i, b], 0), torch.softmax(z[i, b], 0)
            ce += -q[labels[b]].log().item() / 6
            kl += (p * (p.log() - q.log())).sum().item() / 6
            norm += sum((x - y) ** 2 for x, y in zip(a[i, b].tolist(), z[i, b].tolist(), strict=True)) / 30
    assert summed_cross_entropy(snn, labels).item() == pytest.approx(ce, rel=1e-5)
    assert summed_divergence(snn, ann).item() == pytest.approx(kl, rel=1e-5)
    assert summed_squared_distance(snn, ann).item() == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("loss", [summed_divergence, summed_squared_distance])
def test_a_term_is_zero_where_both_networks_agree(loss) -> None:
    outputs = torch.randn(4, 6, 5, requires_grad=True)
    value = loss(outputs, outputs.detach().clone())
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert outputs.grad.abs().max() < 1e-6


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_terms_are_those_of_the_branches(build, watched, images: Tensor, labels: Tensor, reduction: str) -> None:
    method = joint(build, images, JointASNN.Settings(norm_reduction=reduction), model="resnet18")
    student, ann = method.student, method.ann
    spikes = {name: watched(student, path, "after") for name, path in student.stages.items()}
    maps = {name: watched(ann, path, "after") for name, path in ann.stages.items()}
    answers = watched(ann, "fc", "after")
    logits, losses = method(images, labels, NOW)
    snn_outputs, ann_outputs = [], []
    for name in ("stage1", "stage2", "stage3"):
        pooled = spikes[name][0].unflatten(0, (3, len(labels))).mean((0, 3, 4))
        for found, features, branches in (
            (snn_outputs, pooled, method.snn_branches),
            (ann_outputs, maps[name][0].mean((2, 3)), method.ann_branches),
        ):
            layer = copy.deepcopy(branches.layers[f"feature_{name}"]).double()
            found.append(layer(features).detach())
    snn_outputs.append(logits.detach().double())
    ann_outputs.append(answers[0])
    snn, ann_all = torch.stack(snn_outputs), torch.stack(ann_outputs)
    p = torch.softmax(ann_all, -1)
    expected = {
        "task": nn.functional.cross_entropy(snn[3], labels),
        "branches": sum(nn.functional.cross_entropy(snn[i], labels) for i in range(3)),
        "ann": sum(nn.functional.cross_entropy(ann_all[i], labels) for i in range(4)),
        "kld": (p * (p.log() - torch.log_softmax(snn, -1))).sum() / len(labels),
        "norm": 0.3 * (snn - ann_all).square().sum() / (snn[0].numel() if reduction == "mean" else len(labels)),
    }
    assert losses.keys() == expected.keys()
    for term, value in expected.items():
        assert losses[term].item() == pytest.approx(value.item(), rel=1e-4), term


@pytest.mark.parametrize("term", ["kld", "norm"])
def test_the_anns_outputs_are_detached(term: str, build, images: Tensor, labels: Tensor) -> None:
    method = joint(build, images, JointASNN.Settings(factorise=False))
    _, losses = method(images, labels, NOW)
    losses[term].backward()
    for part in (method.ann, method.ann_branches):
        assert all(p.grad is None for p in part.parameters())
    assert all(p.grad is not None for p in method.snn_branches.parameters())
    shared = joint(build, images)
    _, losses = shared(images, labels, NOW)
    losses[term].backward()
    for group in shared.factors.groups:
        assert torch.count_nonzero(group.singular.grad[:, :, 0]) == 0
        assert torch.count_nonzero(group.singular.grad[:, :, 1]) > 0


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_table_4_trains_all_it_has(row: str, build, images: Tensor, labels: Tensor) -> None:
    settings = ROWS[row]
    method = joint(build, images, settings)
    before = {name: p.detach().clone() for name, p in method.named_parameters() if p.requires_grad}
    _, losses = method(images, labels, NOW)
    assert losses.keys() == {
        "task",
        "ann",
        *(["branches"] if settings.ce else []),
        *(["kld"] if settings.kld else []),
        *(["norm"] if settings.norm else []),
    }
    assert (method.factors is not None) == settings.factorise
    totals = train(method, images, labels, 12)
    assert totals[-1] < totals[0]
    # No dead parameters: whatever may be trained is.
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert all(not torch.equal(trained[name], value) for name, value in before.items())


def test_weight_decay_pulls_on_the_weights_and_no_longer_on_their_factors(
    build, images: Tensor, labels: Tensor
) -> None:
    method = joint(build, images, JointASNN.Settings(weight_decay=0.02))
    _, losses = method(images, labels, NOW)
    convolutions = [
        module.weight.detach().double()
        for network in (method.byproducts()["ann"], method.deployable())
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    assert losses["decay"].item() == pytest.approx(0.01 * sum(w.square().sum().item() for w in convolutions), rel=1e-4)
    # The factors are still a singular value decomposition: there the pull on a weight is one on its singular values.
    losses["decay"].backward()
    for group in method.factors.groups:
        torch.testing.assert_close(group.singular.grad, 0.02 * group.singular.detach(), rtol=1e-3, atol=1e-5)
    optimizer = make_optimizer(method, OptimizerSettings(weight_decay=5e-4))
    undecayed = {id(p) for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert undecayed == {id(p) for p in method.factors.parameters()}


def test_without_one_of_its_own_weight_decay_pulls_on_the_factors(build, images: Tensor) -> None:
    optimizer = make_optimizer(joint(build, images), OptimizerSettings(weight_decay=5e-4))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4]


def test_a_weight_decay_without_factors_is_refused() -> None:
    with pytest.raises(UserError, match=r"set optimizer\.weight_decay"):
        JointASNN.Settings(weight_decay=1e-4, factorise=False)


@pytest.mark.parametrize("linear", [False, True])
def test_the_optimiser_sees_factors_instead_of_weights(linear: bool, build, images: Tensor) -> None:
    method = joint(build, images, JointASNN.Settings(linear=linear))
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    kinds = (nn.Conv2d, nn.Linear)
    factorised = kinds if linear else nn.Conv2d
    for side, network in (("student", method.student), ("ann", method.ann)):
        for path, module in network.named_modules():
            name = f"{side}.{path}.weight"
            if isinstance(module, (*kinds, nn.BatchNorm2d)):
                assert (name in trained) != isinstance(module, factorised), name
            if isinstance(module, kinds) and module.bias is not None:
                assert f"{side}.{path}.bias" in trained
    assert any(name.startswith("factors.") for name in trained)
    assert any(name.startswith("factors.") for name in method.state_dict())


@pytest.mark.parametrize(
    "model", ["resnet18", "vgg16", "resnet50", "wrn16-2", "sew-resnet18", "ms-resnet18", "lenet5", "resnet19"]
)
def test_two_plain_networks_answer_like_the_factorised_ones(model: str, build, images: Tensor, labels: Tensor) -> None:
    needs_size = {"image_size": images.shape[-1]} if model in ("vgg16", "lenet5") else {}
    width = {"width": 6} if model == "lenet5" else {}
    method = joint(build, images, model=model, **needs_size, **width)
    train(method, images, labels)
    method.eval()
    with torch.no_grad():
        weights = method.factors.compose()
        factorised = [
            functional_call(network, composed, (images,))
            for network, composed in zip((method.ann, method.student), weights, strict=True)
        ]
    plain = {"ann": build(model, seed=5, **needs_size, **width)}
    plain["snn"] = build(model, spiking=True, seed=6, **needs_size, **width)
    plain["ann"].load_state_dict(method.byproducts()["ann"].state_dict())
    plain["snn"].load_state_dict(method.deployable().state_dict())
    for network, expected in zip((plain["ann"], plain["snn"]), factorised, strict=True):
        assert torch.allclose(network.eval()(images), expected, rtol=0, atol=1e-5)
    ours, theirs = weights[1], weights[0]
    assert any(not torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_looking_at_the_student_does_not_disturb_training(build, images: Tensor, labels: Tensor) -> None:
    results = []
    for look in (False, True):
        method = joint(build, images)
        train(method, images, labels)
        if look:
            method.deployable().eval()(images)
            method.byproducts()["ann"].eval()(images)
            method.train()
        results.append(train(method, images, labels))
    assert results[0] == results[1]


def test_after_closing_both_are_plain_trainable_networks(build, images: Tensor, labels: Tensor) -> None:
    method = joint(build, images)
    train(method, images, labels)
    method.close()
    for network in (method.deployable(), method.byproducts()["ann"]):
        assert all(p.requires_grad and p.is_leaf for p in network.parameters())
        assert not any(module._forward_hooks for module in network.modules())
        network.train()(images).sum().backward()
        assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        ("resnet18", ["stage1", "stage2", "stage3"]),
        ("resnet34", ["stage1", "stage2", "stage3"]),
        ("vgg16", ["stage1", "stage2", "stage3"]),
        ("vgg11", ["stage1", "stage2", "stage3"]),
        ("resnet20", ["stage1", "stage2"]),
        ("2conv", ["stage1"]),  # of one width
    ],
)
def test_four_branches_where_the_channels_increase(model: str, stages: list[str], build, images: Tensor) -> None:
    options = {"image_size": images.shape[-1]} if model in ("vgg16", "vgg11", "2conv") else {}
    method = joint(build, images, JointASNN.Settings(factorise=False), model=model, **options)
    for branches in (method.snn_branches, method.ann_branches):
        assert list(branches.layers) == [f"feature_{stage}" for stage in stages]
    chosen = joint(build, images, JointASNN.Settings(factorise=False, stages=("stage2",)), model=model, **options)
    assert list(chosen.snn_branches.layers) == ["feature_stage2"]


def test_the_start_is_the_anns_and_the_same_for_both(build, images: Tensor) -> None:
    student, ann = build(spiking=True), build(seed=1)
    start = ann.layer1[0].conv1.weight.clone()
    method = JointASNN(student, ann, JointASNN.Settings(), images[:2])
    for network in (method.deployable(), method.byproducts()["ann"]):
        assert torch.allclose(network.layer1[0].conv1.weight, start, atol=1e-5)


def test_learned_decays_are_the_snns_own(build, plain, images: Tensor, labels: Tensor) -> None:
    from spikedistill import create_model

    torch.manual_seed(0)
    student = create_model(
        "resnet14",
        num_classes=5,
        in_channels=3,
        width=4,
        spiking=True,
        timesteps=3,
        neuron=LIF(threshold=0.5, learn_decay=True),
    )
    method = JointASNN(student, build(seed=1), JointASNN.Settings(), images[:2]).train()
    before = student.relu.neuron.decay_logit.item()
    train(method, images, labels)
    assert student.relu.neuron.decay_logit.item() != before


def test_a_sequence_of_frames_is_taken_too(build, images: Tensor, labels: Tensor) -> None:
    method = joint(build, images)
    logits, losses = method(images.expand(2, *images.shape), labels, NOW)
    assert logits.shape == (len(labels), 5)
    assert all(torch.isfinite(value) for value in losses.values())


def test_what_does_not_fit_is_refused(build, images: Tensor) -> None:
    with pytest.raises(UserError, match=r"architecture: 'layer1\.2\.conv1\.weight' is missing in the student"):
        JointASNN(build(spiking=True), build("resnet20"), JointASNN.Settings(), images[:2])
    with pytest.raises(UserError, match=r"'conv1\.weight' is \[4, 3, 3, 3\] in the student, \[8, 3, 3, 3\] in the ANN"):
        JointASNN(build(spiking=True), build(width=8), JointASNN.Settings(), images[:2])
    with pytest.raises(UserError, match="stage9"):
        joint(build, images, JointASNN.Settings(stages=("stage9",)))
    with pytest.raises(UserError, match=r"method\.ce=false"):
        JointASNN.Settings(ce=False, stages=("stage1",))
    with pytest.raises(UserError, match=r"method\.kld must be at least 0"):
        JointASNN.Settings(kld=-1.0)


def test_without_factorisation_any_ann_with_the_same_stages_will_do(build, images: Tensor, labels: Tensor) -> None:
    student, ann = build(spiking=True), build("resnet20", width=8)
    method = JointASNN(student, ann, JointASNN.Settings(factorise=False), images[:2]).train()
    totals = train(method, images, labels, 8)
    assert totals[-1] < totals[0]


def test_weights_that_are_computed_from_others_are_refused(build, images: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    for network in (student, teacher):
        torch.nn.utils.parametrizations.weight_norm(network.conv1)
    with pytest.raises(UserError, match=r"'conv1\.weight' is no parameter but computed from others"):
        JointASNN(student, teacher, JointASNN.Settings(), images)


def test_frozen_weights_stay_and_others_are_given_back(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    student.conv1.weight.requires_grad_(False)
    before = student.conv1.weight.clone()
    method = JointASNN(student, teacher, JointASNN.Settings(), images)
    method(images, labels, Progress(0, 2))
    method.close()
    assert torch.equal(student.conv1.weight, before) and not student.conv1.weight.requires_grad
    assert not torch.equal(teacher.conv1.weight, before)
    others = {name: value for name, value in student.named_parameters() if name != "conv1.weight"}
    assert all(value.requires_grad for value in others.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"linear": True, "factorise": False}, "method.linear"),
        ({"norm_reduction": "sum", "norm": 0.0}, "norm_reduction"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        JointASNN.Settings(**settings)
