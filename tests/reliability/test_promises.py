"""Each promise of docs/reliability.md names a test that is there, and each test of this folder has its promise."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"


def promised() -> list[tuple[str, str]]:
    return re.findall(r"\| `([\w/]+\.py)::(\w+)` \|$", PAGE.read_text(), flags=re.M)


def test_every_promise_names_a_test_that_exists() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (?!promise )", line)]
    assert len(rows) == len(promised()) > 40
    for file, name in promised():
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), flags=re.M), f"{file}::{name}"


def test_no_file_of_tests_is_without_a_promise() -> None:
    ours = {f"reliability/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert ours - {file for file, _ in promised()} == {f"reliability/{Path(__file__).name}"}


def test_no_two_promises_lean_on_one_test() -> None:
    assert len(set(promised())) == len(promised())
