"""The command line: one function a command, exit code 0 (done), 1 (failed) or 2 (refused input)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spikedistill.errors import TrainingFailed, UserError, unknown

app = typer.Typer(
    name="spikedistill",
    help="Turn a trained neural network into a spiking one by letting it teach.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Runs = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="One method, one seed: seconds.")] = False,
) -> None:
    """Train an ANN on handwritten digits, distil it by every method, and write a report.

    Example: [bold]spikedistill demo --quick[/bold]
    """
    from spikedistill.demo import run_demo

    run_demo(out, quick=quick)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides: key=value.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Shrink the recipe to seconds.")] = False,
) -> None:
    """Run a recipe to its end.

    Example: [bold]spikedistill train mnist-2conv-kdsnn data.path=data/mnist seed=1 out=runs/mnist-1[/bold]
    """
    from spikedistill.recipebook import read_recipe
    from spikedistill.run import train as run_recipe

    run = run_recipe(read_recipe(recipe, overrides or [], smoke), resume=resume)
    summary = run.summary
    teacher = summary["teacher_accuracy"]
    taught = f", teacher {teacher:.2f} %" if teacher is not None else ""
    steps = f" at T={summary['timesteps']}" if summary["timesteps"] else ""
    typer.echo(f"{summary['method']}: {summary['student_accuracy']:.2f} %{steps}{taught}  ->  {run.folder}")


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    timesteps: Annotated[int | None, typer.Option(help="Run the SNN with another number of timesteps.")] = None,
    data_path: Annotated[str | None, typer.Option("--data-path", help="Where the data lie now.")] = None,
    as_json: Json = False,
) -> None:
    """Accuracy on the test images, per timestep, and firing rates.

    Example: [bold]spikedistill eval runs/mnist-1 --timesteps 2[/bold]
    """
    from spikedistill.evaluate import evaluate_run, print_evaluation

    print_evaluation(evaluate_run(run, timesteps=timesteps, data_path=data_path), as_json)


@app.command()
def table(runs: Runs, markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False) -> None:
    """Compare runs: mean and standard deviation over seeds, beside the published figure.

    Example: [bold]spikedistill table runs/*[/bold]
    """
    from spikedistill.report import find_runs, print_table, to_markdown

    found = find_runs(runs)
    if markdown:
        typer.echo(to_markdown(found))
    else:
        print_table(found)


@app.command()
def report(
    runs: Runs, out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html")
) -> None:
    """Write one self-contained HTML page about any set of runs.

    Example: [bold]spikedistill report runs/demo -o demo.html[/bold]
    """
    from spikedistill.report import find_runs, write_report

    typer.echo(f"wrote {write_report(find_runs(runs), out)}")


@app.command()
def search(
    recipe: Annotated[str, typer.Argument(help="A recipe of method supernet, or the run folder of one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides: key=value.")] = None,
    trials: Annotated[int, typer.Option(help="How many subnets to try.")] = 300,
    storage: Annotated[str | None, typer.Option(help="SQLite file or database URL for the trials.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Shrink the recipe to seconds.")] = False,
) -> None:
    """Train a supernet and search it for the best architecture; the same command goes on where it was interrupted.

    Example: [bold]spikedistill search digits-supernet --trials 30[/bold]
    """
    from spikedistill.architecture import search_recipe

    found = search_recipe(recipe, overrides or [], trials=trials, storage=storage, smoke=smoke)
    best, reference = found["best"], found["reference"]
    typer.echo(
        f"best {best['subnet']}: {best['validation_accuracy']:.2f} % of the validation part, "
        f"the teacher's architecture {reference['validation_accuracy']:.2f} %  ->  {found['folder']}"
    )


@app.command(name="list")
def list_names(what: Annotated[str, typer.Argument(help="models, methods, recipes or data")]) -> None:
    """List what ships with the package.

    Example: [bold]spikedistill list recipes[/bold]
    """
    from spikedistill.catalogue import CATALOGUES

    if what not in CATALOGUES:
        raise unknown("list", what, list(CATALOGUES))
    for name, line in CATALOGUES[what]().items():
        typer.echo(f"{name:<36} {line}".rstrip())


def main() -> None:
    """Runs the command line; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"spikedistill: {error}", err=True)
        sys.exit(2)
    except TrainingFailed as error:
        typer.echo(f"spikedistill: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("spikedistill: interrupted; go on with --resume", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
