"""A short run of the fuzzing targets, without atheris: seeds, and what hypothesis makes of them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikedistill.documents import parse_yaml
from spikedistill.errors import UserError
from spikedistill.recipe import Recipe, parse
from spikedistill.recipebook import read_recipe

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
RUNS = 120
Target = Callable[[bytes], None]


@pytest.fixture(scope="module", params=["recipe", "run-folder", "nir"])
def target(request: pytest.FixtureRequest, finished: Path) -> Iterator[tuple[Target, list[bytes]]]:
    """A target with the inputs to begin from."""
    if request.param == "nir":
        pytest.importorskip("nir")
    sys.path.insert(0, str(FUZZ))
    try:
        import seeds  # pyright: ignore[reportMissingImports]
        import targets  # pyright: ignore[reportMissingImports]

        if request.param == "recipe":
            # All of them are parsed by the tests of recipes; a few are enough to be changed.
            yield targets.recipe, seeds.recipe_seeds()[::10] + seeds.recipe_seeds()[-14:]
        elif request.param == "nir":
            yield targets.nir, seeds.nir_seeds()
        else:
            workplace = targets.Workplace(finished)
            yield targets.run_folder(workplace), seeds.run_seeds(finished)
            workplace.close()
    finally:
        sys.path.remove(str(FUZZ))


def changed(content: bytes, seeds: list[bytes], draws: Random) -> bytes:
    """An input with a few bytes put in, taken out, exchanged, or taken from another one."""
    made = bytearray(content)
    for _ in range(draws.choice((1, 1, 2, 4))):
        at, other = draws.randrange(len(made) + 1), draws.choice(seeds)
        start = draws.randrange(len(other))
        piece = draws.choice((b"1e308", b"-1", b"null", b"[]", b"9" * 40, b"\n", b": ", bytes([draws.randrange(256)])))
        size = draws.randrange(20)
        made[at : at + draws.choice((0, size))] = draws.choice((piece, b"", other[start : start + size]))
    return bytes(made)


def test_nothing_but_a_sentence_comes_of_any_input(target: tuple[Target, list[bytes]]) -> None:
    act, seeds = target
    for content in seeds[:60]:
        act(content)
    draws = Random(0)
    for _ in range(RUNS):
        act(changed(draws.choice(seeds), seeds, draws))


KEYS = st.sampled_from([*Recipe.model_fields, "name", "model", "width", "alpha", "x"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["snn", "kdsnn-response", "2conv", "sgd", "digits", "copy", "cosine", "triangle"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_a_recipe_of_anything_is_refused_or_resolved(content: dict[str, object]) -> None:
    content = {"method": {"name": "snn"}, **content}
    try:
        recipe = parse(content)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert parse(parse_yaml(recipe.to_yaml(), "it")) == recipe


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_an_override_of_anything_is_refused_or_taken(key: str, value: str) -> None:
    try:
        read_recipe("digits-2conv-snn", [f"{key}={value}"])
    except UserError as error:
        assert "\n" not in str(error)
