"""``widehead bench``: methods side by side over a sweep of sizes, the table of the paper, and a long run's upkeep."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from widehead.cli.commands import SETTINGS, Command, Group
from widehead.cli.completion import some_of
from widehead.cli.console import say, show_json, show_table, working
from widehead.cli.files import appending
from widehead.cli.options import DeviceOption, JsonOption, OutOption, ThreadsOption, usable_device, whole_numbers
from widehead.names import METHODS

bench = typer.Typer(cls=Group, help="Measure speed, method beside method.", context_settings=SETTINGS)

Numbers = tuple  # type: ignore[type-arg]  # of `whole_numbers`; beside a parser typer takes the bare type alone


def _sizes(name: str, text: str) -> Any:
    return typer.Option(name, parser=whole_numbers, metavar="N,N,…", help=text)


@bench.command("output-layer", cls=Command, context_settings=SETTINGS)
def output_layer(
    classes: Annotated[Numbers, _sizes("--classes", "Numbers of classes D.")] = "100000",  # type: ignore
    width: Annotated[Numbers, _sizes("--width", "Widths d of the hidden layer.")] = "256",  # type: ignore
    batch: Annotated[Numbers, _sizes("--batch", "Examples m in a step.")] = "128",  # type: ignore
    targets: Annotated[Numbers, _sizes("--targets", "Targets K of an example.")] = "1",  # type: ignore
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help=f"Which to time, separated by commas: {', '.join(METHODS)}.",
            autocompletion=some_of(METHODS),
        ),
    ] = "exact,dense",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns that each method gets.")] = 5,
    out: OutOption = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw time against the number of classes: a .png picture, or a .html page."),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that share rows and examples; --threads is of each.")
    ] = 1,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time one training step of an output layer: loss, gradient to the encoder, update of all D × d weights.

    Methods take turns in one process; figures are medians. The floor is 14·d²·m floating-point operations at the rate
    of a plain float32 matrix product measured in the same run. If sizes are lists, every combination is timed.
    A method that does not fit in memory is left out of that combination.

    **Examples**

        widehead bench output-layer --classes 793471 --width 300 --batch 128

        widehead bench output-layer --classes 10000,100000,1000000 --methods exact,dense,sampled --plot steps.png
    """
    from widehead.bench import compare_step
    from widehead.bench.output_layer import combinations, left_out

    device = usable_device(device)
    problems = combinations(classes, width, batch, targets)
    names = [name.strip() for name in methods.split(",")]
    _check(problems, plot)
    for problem in problems:
        left_out(problem, names, device, processes)  # an error here comes before anything is timed
    if len(problems) > 1:
        say(f"{len(problems)} combinations: {_counts(problems)}.")
    rows: list[dict[str, Any]] = []
    with appending(out) as append:
        for problem in problems:
            with working(f"Timing {problem.classes:,} classes"):
                sizes = problem.sizes.values()
                made = compare_step(*sizes, methods=names, rounds=rounds, device=device, processes=processes)
            for row in made:
                append(row)
                if row["skipped"] is not None:
                    say(f"left out: {row['skipped']}")
            rows += made
    if plot is not None:
        from widehead.report import write_timings

        write_timings(rows, plot)
        say(f"plot: {plot}")
    show_json({"rows": rows}) if as_json else _show(rows)


def _check(problems: list[Any], plot: Path | None) -> None:
    if not problems:
        raise typer.BadParameter("expected at least one number", param_hint="--classes, --width, --batch, --targets")
    if plot is None:
        return
    if plot.suffix not in (".png", ".html"):
        raise typer.BadParameter(
            f"expected a name that ends in .png or .html. Found {str(plot)!r}", param_hint="--plot"
        )
    if len({problem.classes for problem in problems}) < 2:
        raise typer.BadParameter("a plot against D needs several --classes. Found one", param_hint="--plot")


def _counts(problems: list[Any]) -> str:
    """How many values each size takes, if it takes several."""
    counts = {name: len({problem.sizes[name] for problem in problems}) for name in problems[0].sizes}
    return " × ".join(f"{n} of --{_SIZES[name]}" for name, n in counts.items() if n > 1)


_SIZES = {"classes": "classes", "width": "width", "batch": "batch", "targets_per_example": "targets"}


def _show(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    varying = [name for name in _SIZES if name == "classes" or len({row[name] for row in rows}) > 1]
    fixed = [f"{_SIZES[name]} {first[name]:,}" for name in _SIZES if name not in varying]
    title = f"One training step: {', '.join([*fixed, str(first['device'])])}, {first['threads']} thread(s)"
    if first["processes"] > 1:
        title += f" in each of {first['processes']} processes"
    columns: dict[str, list[str]] = {_SIZES[name]: [f"{row[name]:,}" for row in rows] for name in varying}
    columns["method"] = [row["method"] for row in rows]
    for name, (key, unit, digits) in _FIGURES.items():
        cells = ["–" if row[key] is None else f"{unit * row[key]:,.{digits}f}" for row in rows]
        if any(cell != "–" for cell in cells):
            columns[name] = cells
    show_table(title, list(columns), list(zip(*columns.values(), strict=True)))


_FIGURES = {
    "milliseconds": ("seconds", 1e3, 2),
    "99 % below": ("seconds_p99", 1e3, 2),
    "times faster than dense": ("ratio_to_dense", 1.0, 1),
    "than full softmax": ("ratio_to_full", 1.0, 1),
    "times exact SGD": ("ratio_to_exact", 1.0, 2),
    "times the floor": ("ratio_to_floor", 1.0, 1),
    "peak MB": ("peak_bytes", 1e-6, 0),
}


@bench.command("paper-table", cls=Command, context_settings=SETTINGS)
def paper_table_command(
    classes: Annotated[int, typer.Option("--classes", min=1, help="Words D.")] = 793_471,
    width: Annotated[int, typer.Option("--width", min=1, help="Width d of both hidden layers.")] = 300,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples m in a step.")] = 128,
    embedding: Annotated[int, typer.Option("--embedding", min=1, help="Width of a word's embedding.")] = 100,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns that each method gets.")] = 3,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time the language model of the paper by Vincent, de Brébisson and Bouthillier, exact and as plain PyTorch.

    Nine words predict the tenth among 793,471, by two hidden layers of 300, in minibatches of 128: the output layer
    alone, and the whole model. Published speed-ups stand beside those measured. It takes about 6 GB of memory.

    **Example**

        widehead bench paper-table
    """
    from widehead.bench import paper_table
    from widehead.bench.paper import PaperSizes

    device = usable_device(device)
    sizes = PaperSizes(classes=classes, width=width, batch=batch, embedding=embedding)
    with appending(out) as append:
        with working(f"Timing {classes:,} words"):
            rows = paper_table(sizes, rounds=rounds, device=device)
        for row in rows:
            append(row)
    show_json({"rows": rows}) if as_json else _show_paper(rows)


def _show_paper(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    sizes = f"{first['classes']:,} words, width {first['width']}, batch {first['batch']}"
    header = ["training step of", "dense PyTorch, ms", "exact, ms", "times faster", "published, CPU"]
    title = f"{sizes}; {first['device']}, {first['threads']} thread(s)"
    show_table(title, header, [_paper_cells(row) for row in rows])
    for source in dict.fromkeys(fact["source"] for row in rows for fact in row["published"]):
        print(f"Published: {source}.")


def _paper_cells(row: dict[str, Any]) -> list[str]:
    published = [f"{fact['speedup']:,.0f}" for fact in row["published"] if fact["device"] == "cpu"]
    return [
        row["part"],
        f"{1e3 * row['dense_seconds']:,.1f}",
        f"{1e3 * row['exact_seconds']:,.2f}",
        f"{row['speedup']:,.0f}",
        published[0] if published else "–",
    ]


@bench.command("upkeep", cls=Command, context_settings=SETTINGS)
def upkeep_command(
    classes: Annotated[int, typer.Option("--classes", min=1, help="Number of classes D.")] = 1_000_000,
    width: Annotated[int, typer.Option("--width", min=1, help="Width d of the hidden layer.")] = 64,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples m in a step.")] = 128,
    per_example: Annotated[int, typer.Option("--targets", min=1, help="Targets K of an example.")] = 1,
    distribution: Annotated[
        Literal["zipf", "uniform"], typer.Option("--target-distribution", help="How target classes are drawn.")
    ] = "zipf",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to make.")] = 20_000,
    optimizer: Annotated[Literal["sgd", "newton"], typer.Option("--optimizer", help="Optimiser of the head.")] = "sgd",
    curvature: Annotated[
        float | None,
        typer.Option("--curvature", help="lr of SGD, as a fraction of the largest stable one. [default: 0.5]"),
    ] = None,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the exact head for many steps and say what its upkeep costs: closing segments and moving rows forward.

    Hidden layers are drawn to look like a trained encoder's: half of their square in one mean direction, the rest with
    a spectrum that decays as 1/i. Steps are timed one by one, and in them every call that does upkeep.

    **Example**

        widehead bench upkeep --optimizer newton --steps 5000
    """
    from widehead.bench import measure_upkeep

    device = usable_device(device)
    with appending(out) as append:
        with working(f"Training {steps:,} steps"):
            sizes = classes, width, batch, per_example
            how: dict[str, Any] = {"optimizer": optimizer, "curvature": curvature, "targets": distribution}
            row = measure_upkeep(*sizes, steps=steps, device=device, **how)
        append(row)
    show_json(row) if as_json else _show_upkeep(row)


def _show_upkeep(row: dict[str, Any]) -> None:
    title = (
        f"{row['steps']:,} steps of {row['optimizer']}, lr {row['lr']:.3g}: {row['classes']:,} classes, width "
        f"{row['width']}, batch {row['batch']}, {row['targets']} targets; {row['device']}, {row['threads']} thread(s)"
    )
    cells = [
        ["median step", f"{1e3 * row['seconds']:.3f} ms"],
        ["99th percentile", f"{row['p99_in_medians']:.2f} medians"],
        ["99.9th percentile", f"{row['p999_in_medians']:.2f} medians"],
        ["longest step", f"{row['max_in_medians']:.2f} medians"],
        ["segments closed", f"{row['closes_per_step']:.4f} a step"],
        ["rows moved", f"{row['rows_moved']:,}"],
        ["time in closing segments", f"{100 * row['closing_share']:.2f} %"],
        ["time in moving rows", f"{100 * row['moving_share']:.2f} %"],
        ["longest close", f"{1e3 * row['longest_close']:.2f} ms"],
        ["longest move of rows", f"{1e3 * row['longest_move']:.2f} ms"],
    ]
    show_table(title, ["figure", "value"], cells)
