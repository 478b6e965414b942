"""The fused twin against the plain loop: same spikes bit for bit, same gradients to 1e-6."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.spiking import LIF, SHAPES, compiling, fused, make_surrogate
from spikedistill.spiking.kernels import Dynamics, plain_run, run

SETTINGS = list(itertools.product([False, True], [False, True], [False, True], SHAPES))
LAYOUTS = ["contiguous", "channels-last", "expanded", "strided", "features"]

# Each of these is compiled; together they hold every surrogate, reset, comparison and kind of decay.
COMPILED = [
    (Dynamics(1.0, False, False, False, make_surrogate("triangle")), 0.5),
    (Dynamics(0.7, True, True, False, make_surrogate("sigmoid")), torch.tensor(0.6)),
    (Dynamics(0.9, False, True, True, make_surrogate("arctan")), torch.linspace(0.1, 0.9, 6).reshape(6, 1, 1)),
    (Dynamics(1.1, True, False, True, make_surrogate("rectangle", 0.8)), 1.0),
    (Dynamics(1.0, False, True, False, make_surrogate("exponential")), torch.tensor([0.3])),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def currents(layout: str, timesteps: int, batch: int, side: int, seed: int, dtype=torch.float32) -> Tensor:
    """Currents [T, B, 6, side, side + 1] (or [T, B, 6]) whose membrane potentials lie around the threshold."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(timesteps, batch, 6, side, side + 1, generator=generator).mul(1.2).add(0.4).to(dtype)
    if layout == "channels-last":
        return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (timesteps, batch))
    if layout == "expanded":
        return x[:1].expand_as(x)
    if layout == "strided":
        return x.repeat(1, 2, 1, 1, 1)[:, ::2]
    return x.mean((3, 4)).mul(4.0) if layout == "features" else x


def both(function, x: Tensor, decay: float | Tensor, *rest):
    """Output, gradient of x, gradient of the decay (or None), for a random gradient of the output."""
    x = x.detach().requires_grad_()
    if isinstance(decay, Tensor):
        decay = decay.detach().clone().requires_grad_()
    y = function(x, decay, *rest)
    generator = torch.Generator().manual_seed(1)
    y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
    return y.detach(), x.grad, decay.grad if isinstance(decay, Tensor) else None


def agree(fast, plain, tolerance: float = 1e-6) -> None:
    assert torch.equal(fast[0], plain[0])
    torch.testing.assert_close(fast[1], plain[1], rtol=tolerance, atol=tolerance)
    if plain[2] is not None:  # a sum over a whole layer: relative to the sum of its terms, which is of order 100 here
        torch.testing.assert_close(fast[2], plain[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("timesteps", range(1, 7))
def test_the_uncompiled_twin_equals_the_loop_for_every_setting(timesteps, monkeypatch):
    monkeypatch.setattr(
        compiling, "call", lambda function, tensors, constants, inline=False: function(*tensors, **constants)
    )
    for (soft, strict, detach, surrogate), layout in zip(SETTINGS, itertools.cycle(LAYOUTS), strict=False):
        dynamics = Dynamics(0.8, soft, strict, detach, make_surrogate(surrogate))
        x = currents(layout, timesteps, 3, 4, seed=timesteps)
        for decay in (0.5, torch.tensor(0.7), torch.linspace(0.2, 1.0, x[0, 0].numel()).reshape(x.shape[2:])):
            fast, plain = (both(f, x, decay, dynamics) for f in (twin, plain_run))
            agree(fast, plain)


def twin(x: Tensor, decay: float | Tensor, dynamics: Dynamics) -> Tensor:
    return fused.run(x, decay, dynamics)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # an expanded current is a kernel of its own: one setting stands for all
    st.tuples(st.sampled_from(COMPILED), st.sampled_from(["contiguous", "channels-last", "strided"]))
    | st.tuples(st.just(COMPILED[0]), st.just("expanded")),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 2**16),
)
def test_the_compiled_twin_equals_the_loop_whatever_shape_and_layout(case, batch, side, seed):
    (dynamics, decay), layout = case
    x = currents(layout, 4, batch, side, seed)
    with compiling.choose("fused"):
        fast = both(run, x, decay, dynamics)
    agree(fast, both(plain_run, x, decay, dynamics))


@pytest.mark.parametrize("timesteps", [1, 6])
def test_compiled_for_other_numbers_of_timesteps(timesteps):
    dynamics, decay = COMPILED[0]
    x = currents("channels-last", timesteps, 5, 6, seed=0)
    with compiling.choose("fused"):
        agree(both(run, x, decay, dynamics), both(plain_run, x, decay, dynamics))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    dynamics, decay = COMPILED[0]
    x = currents("contiguous", 4, 3, 8, seed=3, dtype=dtype)
    with compiling.choose("fused"):
        fast = both(run, x, decay, dynamics)
    agree(fast, both(plain_run, x, decay, dynamics))
    assert fast[0].dtype == fast[1].dtype == dtype
    if dtype != torch.float64:  # the membrane is float32: the spikes are those of the rounded current in float32
        assert torch.equal(fast[0], plain_run(x.float(), decay, dynamics).to(dtype))


@pytest.mark.parametrize("case", range(len(COMPILED)))
def test_gradients_against_float64(case):
    dynamics, decay = COMPILED[case]
    x = currents("contiguous", 4, 3, 8, seed=4)
    with compiling.choose("fused"):
        fast = both(run, x, decay, dynamics)
    exact = both(plain_run, x.double(), decay.double() if isinstance(decay, Tensor) else decay, dynamics)
    assert torch.equal(fast[0].double(), exact[0])
    torch.testing.assert_close(fast[1].double(), exact[1], rtol=2e-6, atol=1e-6)
    if exact[2] is not None:
        torch.testing.assert_close(fast[2].double(), exact[2], rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_layout_is_kept_and_nothing_but_the_current_is_saved(layout):
    dynamics, decay = COMPILED[0]
    x = currents(layout, 4, 3, 8, seed=5).requires_grad_()
    saved: list[Tensor] = []
    with (
        compiling.choose("fused"),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        y = run(x, decay, dynamics)
    assert y.stride() == x.stride()
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert grad.stride() == x.stride()


def test_an_expanded_current_is_not_materialised():
    x = currents("expanded", 4, 3, 8, seed=6)
    flat = fused.flatten(x, x)
    assert flat.shape == (1, x[0].numel()) and flat.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("case", [0, 2])
def test_a_constant_current_equals_its_repetition(case):
    dynamics, decay = COMPILED[case]
    image = currents("contiguous", 1, 3, 8, seed=7)[0]

    def repeated(x: Tensor, decay: float | Tensor) -> Tensor:
        return plain_run(x.expand(4, *x.shape), decay, dynamics)

    def constant(x: Tensor, decay: float | Tensor) -> Tensor:
        return run(x.expand(4, *x.shape), decay, dynamics)

    for backend in ("fused", "plain"):
        with compiling.choose(backend):
            agree(both(constant, image, decay), both(repeated, image, decay))


def test_a_gradient_that_is_expanded_over_time():
    dynamics, decay = COMPILED[0]
    x = currents("contiguous", 4, 3, 8, seed=8)
    grads = []
    for backend in ("fused", "plain"):
        leaf = x.clone().requires_grad_()
        with compiling.choose(backend):
            run(leaf, decay, dynamics).mean(0).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-6)


# Dynamo instantiates the autograd function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_inside_a_compiled_network_and_under_autocast():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 4, 3), nn.Unflatten(0, (4, -1)), LIF(), nn.Flatten(0, 1), nn.Conv2d(4, 2, 3))
    x = currents("contiguous", 4, 2, 9, seed=9).flatten(0, 1)
    compiled = torch.compile(network, fullgraph=True)
    results = {}
    for backend, module, autocast in (("plain", network, False), ("fused", network, True), ("fused", compiled, False)):
        network.zero_grad()
        with compiling.choose(backend), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = module(x)
        assert y.dtype == (torch.bfloat16 if autocast else torch.float32)
        y.float().square().sum().backward()
        results[backend, autocast] = y.detach().float(), [p.grad.clone() for p in network.parameters()]
    assert torch.equal(results["plain", False][0], results["fused", False][0])
    for ours, theirs in zip(results["fused", False][1], results["plain", False][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert results["fused", True][0].sub(results["plain", False][0]).abs().mean() < 0.2


def test_small_tensors_stay_plain_and_large_ones_do_not():
    with compiling.choose("auto"):
        assert not compiling.pays(torch.empty(compiling.SMALL - 1))
        assert compiling.pays(torch.empty(compiling.SMALL))
    with compiling.choose("plain"):
        assert not compiling.pays(torch.empty(compiling.SMALL))


def test_the_environment_chooses_and_a_wrong_name_is_refused(monkeypatch):
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")
    assert compiling.choice() == "plain"
    with compiling.choose("fused"):
        assert compiling.choice() == "fused"
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "fusd")
    with pytest.raises(UserError, match="fused"):
        compiling.choice()
    with pytest.raises(UserError, match="fused"), compiling.choose("fusd"):
        pass


def test_without_a_compiler_one_warning_and_the_plain_result(monkeypatch):
    def no_compiler(*_args, **_settings):
        def fail(*_tensors):
            raise RuntimeError("no working C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(compiling._State, "broken", set())
    dynamics = Dynamics(0.777, False, False, False, make_surrogate("triangle"))
    x = currents("contiguous", 4, 40, 11, seed=10)
    assert x.numel() >= compiling.SMALL
    with compiling.choose("auto"):
        with pytest.warns(UserWarning, match="no working C\\+\\+ compiler") as record:
            fast = both(run, x, 0.5, dynamics)
        agree(fast, both(plain_run, x, 0.5, dynamics))
        run(x, 0.25, dynamics)  # no second warning: it would be an error
    assert len(record) == 1
    with compiling.choose("fused"), pytest.raises(RuntimeError, match="compiler"):
        run(x, 0.125, dynamics)


@pytest.mark.parametrize("kernels_are", ["plain", "fused"])
def test_spikes_may_be_written_over(kernels_are: str) -> None:
    """As a residual block does that adds in place."""
    z, skip = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(2, 3, 8, 8, requires_grad=True)
    with compiling.choose(kernels_are):
        spikes = LIF(threshold=0.2)(z)
        expected = spikes.detach() + skip.detach()
        spikes += skip
        spikes.square().sum().backward()
    torch.testing.assert_close(spikes.detach(), expected)
    assert z.grad is not None and skip.grad is not None and float(z.grad.abs().sum()) > 0
    torch.testing.assert_close(skip.grad, 2 * expected)
