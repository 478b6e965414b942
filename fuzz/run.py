"""Coverage-guided fuzzing by atheris: ``python fuzz/run.py recipe -runs=100000``; see README.md."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

# Not PyYAML: guided by coverage or not, it makes plain values, and instrumented it takes most of the time.
with atheris.instrument_imports(include=["spikedistill", "nir"]):  # pyright: ignore
    import nir  # noqa: F401

    import spikedistill.report
    import spikedistill.run
    import spikedistill.sweep  # noqa: F401
    from spikedistill.export import interpreter  # noqa: F401

import seeds
import targets


def prepare(name: str, place: Path) -> tuple[Callable[[bytes], None], list[bytes]]:
    """A target and the inputs to begin from."""
    if name == "recipe":
        return targets.recipe, seeds.recipe_seeds()
    if name == "nir":
        return targets.nir, seeds.nir_seeds()
    if name == "run-folder":
        run = seeds.small_run(place / "run")
        return targets.run_folder(targets.Workplace(run)), seeds.run_seeds(run)
    sys.exit(f"no target '{name}' (there are: recipe, run-folder, nir)")


def main() -> None:
    """Writes the seeds into a new corpus and lets libFuzzer go."""
    name, *options = sys.argv[1:] or ["?"]
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    target, inputs = prepare(name, place)
    corpus = place / "corpus"
    corpus.mkdir()
    for number, content in enumerate(inputs):
        (corpus / f"seed-{number:04d}").write_bytes(content)
    print(f"{len(inputs)} seeds in {corpus}", file=sys.stderr)
    words = Path(__file__).with_name("words.dict")
    given = [option for option in options if not option.startswith("-")]  # inputs to be seen again, or a corpus kept
    settings = [f"-dict={words}", "-timeout=120", "-rss_limit_mb=8000", *options, *([] if given else [str(corpus)])]
    atheris.Setup([sys.argv[0], *settings], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
