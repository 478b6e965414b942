"""Every surrogate is the derivative of its primitive, integrates to one and has the width it says."""

import math

import pytest
import torch
from torch import Tensor

from spikedistill.errors import UserError
from spikedistill.spiking import SHAPES, Surrogate, make_surrogate

WIDTHS = (0.25, 1.0, 2.5)

# height at zero, and a distance with the value there, both for width w: (w) -> (height, distance, value)
LANDMARKS = {
    "triangle": lambda w: (1 / w, w / 2, 0.5 / w),
    "rectangle": lambda w: (0.5 / w, 0.999 * w, 0.5 / w),
    "sigmoid": lambda w: (0.25 / w, w * math.log(3), 0.1875 / w),
    "arctan": lambda w: (0.5 / w, w * 2 / math.pi, 0.25 / w),
    "exponential": lambda w: (0.5 / w, w, 0.5 / (math.e * w)),
}

# where the shapes that end do end, in widths
ENDS = {"triangle": 1.0, "rectangle": 1.0}

every_shape = pytest.mark.parametrize("shape", SHAPES)
every_width = pytest.mark.parametrize("width", WIDTHS)


def grid(width: float) -> Tensor:
    """Distances from the threshold, off every kink (those lie at 0 and at one width)."""
    return (torch.linspace(-4.0, 4.0, 801, dtype=torch.float64) + 0.00123) * width


@every_shape
@every_width
def test_derivative_is_that_of_the_primitive(shape: str, width: float) -> None:
    surrogate, x, step = Surrogate(shape, width), grid(width), 1e-5 * width
    numerical = (surrogate.primitive(x + step) - surrogate.primitive(x - step)) / (2 * step)
    torch.testing.assert_close(surrogate.derivative(x), numerical, atol=1e-8 / width, rtol=0)


@every_shape
@every_width
def test_integrates_to_one(shape: str, width: float) -> None:
    # midpoint rule over x = width * tan(angle), which reaches the arctan's long tails
    count = 400_000
    angle = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * math.pi
    values = Surrogate(shape, width).derivative(width * angle.tan()) * width / angle.cos().square()
    assert values.mean().item() * math.pi == pytest.approx(1.0, abs=1e-5)


@every_shape
@every_width
def test_primitive_is_a_step(shape: str, width: float) -> None:
    surrogate = Surrogate(shape, width)
    far = torch.tensor([-1e9, 0.0, 1e9], dtype=torch.float64) * width
    torch.testing.assert_close(surrogate.primitive(far), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert (surrogate.primitive(grid(width)).diff() >= 0).all()


@every_shape
@every_width
def test_derivative_is_even_and_highest_at_the_threshold(shape: str, width: float) -> None:
    surrogate, x = Surrogate(shape, width), grid(width)
    values = surrogate.derivative(x)
    torch.testing.assert_close(surrogate.derivative(-x), values)
    assert (values >= 0).all()
    assert (values <= surrogate.derivative(torch.zeros(1, dtype=torch.float64))).all()


@every_shape
@every_width
def test_has_the_width_it_says(shape: str, width: float) -> None:
    height, distance, value = LANDMARKS[shape](width)
    x = torch.tensor([0.0, distance, -distance], dtype=torch.float64)
    expected = torch.tensor([height, value, value], dtype=torch.float64)
    torch.testing.assert_close(Surrogate(shape, width).derivative(x), expected)


@every_width
@pytest.mark.parametrize("shape", ENDS)
def test_is_zero_from_its_end_on(shape: str, width: float) -> None:
    surrogate = Surrogate(shape, width)
    beyond = torch.tensor([1.0, 1.001, 50.0], dtype=torch.float64) * ENDS[shape] * width
    within = torch.tensor([0.0, 0.5, 0.999], dtype=torch.float64) * ENDS[shape] * width
    for sign in (-1, 1):
        assert (surrogate.derivative(sign * beyond) == 0).all()
        assert (surrogate.derivative(sign * within) > 0).all()


@every_shape
def test_far_from_the_threshold_stays_finite_in_float32(shape: str) -> None:
    x = torch.tensor([-1e30, -1e4, 1e4, 1e30])
    surrogate = make_surrogate(shape)
    assert surrogate.derivative(x).isfinite().all()
    assert surrogate.primitive(x).isfinite().all()


def test_is_the_papers_equation() -> None:
    u = torch.linspace(-1.0, 3.0, 257, dtype=torch.float64)
    sakd_equation_4 = (1 - (u - 1).abs()).clamp_min(0)
    torch.testing.assert_close(Surrogate("triangle", 1.0).derivative(u - 1), sakd_equation_4)
    lens = 0.5  # the threshold of IDSNN's code is 0.5 too
    idsnn_equation_4 = ((u - 0.5).abs() < lens).double() / (2 * lens)
    torch.testing.assert_close(Surrogate("rectangle", lens).derivative(u - 0.5), idsnn_equation_4)
    threshold = 0.8
    joint_equation_5_triangle = (1 - (u / threshold - 1).abs()).clamp_min(0) / threshold
    torch.testing.assert_close(Surrogate("triangle", threshold).derivative(u - threshold), joint_equation_5_triangle)
    a = 0.75
    joint_equation_5_rectangle = ((u - threshold).abs() < a / 2).double() / a
    torch.testing.assert_close(Surrogate("rectangle", a / 2).derivative(u - threshold), joint_equation_5_rectangle)


def test_default_widths_are_those_of_spikingjelly() -> None:
    # its default slopes are 1 (PiecewiseQuadratic, Rect, PiecewiseExp), 4 (Sigmoid) and 2 (ATan)
    widths = {"triangle": 1.0, "rectangle": 0.5, "sigmoid": 0.25, "arctan": 0.5, "exponential": 1.0}
    assert {shape: make_surrogate(shape).width for shape in SHAPES} == widths
    assert make_surrogate("triangle", 3) == Surrogate("triangle", 3.0)


def test_refuses_an_unknown_shape_and_a_width_that_is_none() -> None:
    with pytest.raises(UserError, match="unknown surrogate 'gauss'"):
        make_surrogate("gauss")
    for width in (0.0, -0.5, float("nan")):
        with pytest.raises(UserError, match=r"width must be (positive|a finite number)"):
            make_surrogate("triangle", width)
