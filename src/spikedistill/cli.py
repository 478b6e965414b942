"""The command line: one function a command, exit code 0 (done), 1 (failed) or 2 (refused input)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikedistill.errors import TrainingFailed, unknown
from spikedistill.exits import exiting

app = typer.Typer(
    name="spikedistill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)

SETTINGS = {"ignore_unknown_options": True}
"""Of commands that take ``key=value``: somebody's ``--key value`` is refused with how it is written."""
Runs = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _beside(line: str) -> None:
    typer.echo(line, err=True)


def _version(asked: bool) -> None:
    if asked:
        from spikedistill import __version__

        typer.echo(f"spikedistill {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Turn a trained neural network into a spiking one by letting it teach."""


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


@app.command(context_settings=SETTINGS)
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides: key=value.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Shrink the recipe to seconds: digits, a small teacher."),
    ] = False,
) -> None:
    """Run a recipe to its end.

    Example: [bold]spikedistill train mnist-2conv-kdsnn data.path=data/mnist seed=1 out=runs/mnist-1[/bold]
    """
    from spikedistill.engine.processes import leads
    from spikedistill.recipebook import read_recipe
    from spikedistill.resuming import at_home
    from spikedistill.run import train as run_recipe

    settings = at_home(recipe, overrides or []) if resume else overrides or []
    run = run_recipe(read_recipe(recipe, settings, smoke), resume=resume)
    if not leads():
        return
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
    images: Annotated[int | None, typer.Option(help="How many test images to use; all unless given.")] = None,
    noise: Annotated[
        list[str] | None, typer.Option(help="KIND:VALUE, KIND for a curve, or all; may be given more than once.")
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Accuracy from 1 to 2T steps, and early exit.")] = False,
    as_json: Json = False,
) -> None:
    """Accuracy on the test images, per timestep, firing rates; under noise; by latency.

    Kinds of noise: gaussian, salt-and-pepper, blur, occlusion, spike-deletion, spike-jitter, weights.

    Example: [bold]spikedistill eval runs/mnist-1 --timesteps 2 --noise gaussian:0.05[/bold]
    """
    from spikedistill.evalrun import evaluate_run, print_evaluation

    result = evaluate_run(
        run, timesteps=timesteps, data_path=data_path, images=images, noises=noise or [], by_latency=latency
    )
    print_evaluation(result, as_json)


@app.command()
def energy(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data_path: Annotated[str | None, typer.Option("--data-path", help="Where the data lie now.")] = None,
    images: Annotated[int, typer.Option(help="How many test images to measure.")] = 256,
    constants: Annotated[
        str,
        typer.Option(help="45nm, 45nm-fp16, 45nm-int32, 45nm-int8, joint-asnn, or add=PJ,multiply=PJ,move=PJ:PJ."),
    ] = "45nm",
    as_json: Json = False,
) -> None:
    """Parameters, operations, firing rates and energy of every layer, beside the ANN; writes energy.json.

    Example: [bold]spikedistill energy runs/mnist-1 --constants joint-asnn[/bold]
    """
    from spikedistill.energyrun import energy_of_run, print_energy

    print_energy(energy_of_run(run, data_path=data_path, images=images, constants=constants), as_json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    kind: Annotated[str, typer.Option("--format", help="nir (for chips) or onnx.")] = "nir",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; student.<format> in the run folder by default.")
    ] = None,
    data_path: Annotated[str | None, typer.Option("--data-path", help="Where the data lie now.")] = None,
    images: Annotated[int, typer.Option(help="How many test images to compare on.")] = 1000,
) -> None:
    """Write the network as a file for chips, read it back, compare, and write a model card beside it.

    Example: [bold]spikedistill export runs/mnist-1 --format nir -o mnist.nir[/bold]
    """
    from spikedistill.exporting import export_run, print_exported

    print_exported(export_run(run, kind, out, data_path=data_path, images=images))


@app.command()
def table(runs: Runs, markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False) -> None:
    """Compare runs: mean and standard deviation over seeds, beside the published figure.

    Example: [bold]spikedistill table runs/*[/bold]
    """
    from spikedistill.report import find_runs, print_table, to_markdown

    found = find_runs(runs, _beside)
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

    typer.echo(f"wrote {write_report(find_runs(runs, _beside), out)}")


@app.command(context_settings=SETTINGS)
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


@app.command(context_settings=SETTINGS)
def campaign(
    file: Annotated[Path, typer.Argument(help="A YAML file: a list of runs.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides for all runs: key=value; seed=0,1.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Label of an entry to make, or a pattern: '*sakd*'; may be repeated.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop, with a checkpoint, after so many minutes.")] = None,
    workers: Annotated[int, typer.Option(help="Runs made side by side, on as many GPUs as there are.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the run folders; runs/NAME unless given.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder for records and pages of finished runs.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Shrink every run to seconds.")] = False,
) -> None:
    """Make the runs of a list that are not finished yet; the same command goes on where it stopped.

    Example: [bold]spikedistill campaign results/campaigns/mnist.yaml data.path=data/mnist --minutes 60[/bold]
    """
    from spikedistill.campaign import run_campaign

    troubles = run_campaign(
        file,
        out=out,
        results=results,
        minutes=minutes,
        workers=workers,
        overrides=overrides or [],
        only=only,
        smoke=smoke,
        say=typer.echo,
    )
    if troubles:
        raise TrainingFailed(f"{len(troubles)} left to do; {troubles[-1]}")


@app.command(context_settings=SETTINGS)
def experiment(
    name: Annotated[str, typer.Argument(help="A shipped experiment's name or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides for all runs: key=value; seed=0,1,2.")
    ] = None,
    scale: Annotated[str, typer.Option(help="small (fits two processors) or paper.")] = "small",
    smoke: Annotated[bool, typer.Option("--smoke", help="A few runs, each shrunk to seconds.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for everything; runs/experiments/NAME unless given.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where the finished experiment's record and page go.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop, with a checkpoint, after so many minutes.")] = None,
    workers: Annotated[int, typer.Option(help="Runs made side by side, on as many GPUs as there are.")] = 1,
) -> None:
    """One of the papers' experiments: its runs, a table beside the published one, a picture; goes on where it stopped.

    Example: [bold]spikedistill experiment convergence data.path=data/cifar10[/bold]
    """
    from spikedistill.experiment import run_experiment

    troubles = run_experiment(
        name,
        scale=scale,
        smoke=smoke,
        out=out,
        results=results,
        minutes=minutes,
        workers=workers,
        overrides=overrides or [],
        say=typer.echo,
    )
    if troubles:
        raise TrainingFailed(f"{len(troubles)} left to do; {troubles[-1]}")


@app.command()
def bench(
    works: Annotated[list[str] | None, typer.Argument(help="Which pieces of work; all that suit the device.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of each work.")] = 7,
    small: Annotated[
        bool, typer.Option("--small", help="Shrink the work to try the command; figures mean nothing.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A Markdown page to write; JSON beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Measure speed and memory against the installed peers (SpikingJelly, snnTorch, Norse).

    Example: [bold]spikedistill bench neuron train-bf16 -o results/speed.md[/bold]
    """
    import json

    from spikedistill.bench import bench as measure

    say = (lambda line: typer.echo(line, err=True)) if as_json else typer.echo
    found = measure(works or [], device=device, rounds=rounds, small=small, out=out, say=say)
    if as_json:
        typer.echo(json.dumps(found, indent=2))


@app.command(name="list")
def list_names(what: Annotated[str, typer.Argument(help="models, methods, recipes, data or experiments")]) -> None:
    """List what ships with the package.

    Example: [bold]spikedistill list recipes[/bold]
    """
    from spikedistill.catalogue import CATALOGUES

    if what not in CATALOGUES:
        raise unknown("list", what, list(CATALOGUES))
    for name, line in CATALOGUES[what]().items():
        typer.echo(f"{name:<36} {line}".rstrip())


def main() -> None:
    """Runs the command line."""
    with exiting():
        app()


if __name__ == "__main__":
    main()
