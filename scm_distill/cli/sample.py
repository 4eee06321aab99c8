"""`scm-distill sample`: samples of a student, on disk."""

from pathlib import Path
from typing import Annotated

import typer

from scm_distill.cli import console
from scm_distill.cli.options import Json
from scm_distill.commands.results import SampleResult


def sample(
    model: Annotated[str, typer.Argument(help="A run folder, an exported pipeline folder, or a Hub id.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="What to draw; may be given several times, taken in turn."),
    ] = None,
    prompts_file: Annotated[
        str | None,
        typer.Option(
            "--prompts", metavar="FILE", help='A prompt a line, # for comments; or .jsonl of {"prompt", "seed"?}.'
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes to draw in turn, such as 0-9 or 1,3,7; class-conditional models only.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="How many. Default: 16, or one a prompt.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sample i is drawn from seed + i, whatever the number.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: what the student was made for, two.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples a call; no sample depends on it. Halved where memory runs out.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="TEACHER", help="Also sample this teacher from the same seeds; `teacher` is the run's."),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="fp32|bf16|fp16", help="Of the weights.")] = "fp32",
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda|cuda:1|mps", help="Default: cuda where there is one, else cpu.")
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile the denoisers; its seconds are told apart from the speed.")
    ] = False,
    form: Annotated[
        str | None, typer.Option("--format", metavar="mp4|gif", help="Of clips. Default: mp4, which needs ffmpeg.")
    ] = None,
    fps: Annotated[
        int | None, typer.Option(min=1, max=100, help="Frames a second of clips. Default: the pipeline's, else 16.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, the teacher beside the student.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder. Default: samples/ in a run folder, else ./samples.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw samples from a student, and write them as PNG, MP4 or WAV, with an index.jsonl of prompts and seeds.

    Examples: scm-distill sample runs/digits --grid --compare teacher; scm-distill sample runs/sd15 -p "a red fox"
    """
    with console.user_errors(as_json=as_json):
        from scm_distill.commands import sample

        with console.Live(quiet=as_json) as live:
            result = sample.sample(
                model, prompts=prompts or (), prompts_file=prompts_file, classes=classes, n=n, seed=seed, steps=steps,
                batch=batch, compare=compare, dtype=dtype, device=device, compile=compile_, format=form, fps=fps,
                grid=grid, out=out, report=live,
            )  # fmt: skip
        if as_json:
            console.result_json(result)
            return
        for line in _speed(result):
            console.say(line)
        console.result(str(result.grid or result.folder))
        console.hint(f"scm-distill eval {model}")


def _speed(result: SampleResult) -> list[str]:
    """What it cost, in a line each."""
    lines = []
    for who, cost in (("student", result.student), ("teacher", result.teacher)):
        if cost is None:
            continue
        line = (
            f"{who}: {cost.steps} steps, {cost.nfe:.3g} network evaluations, "
            f"{cost.ms_per_sample:.3g} ms a sample, {cost.samples_per_second:.3g} samples/s "
            f"({cost.scheduler}, batches of {cost.batch}, {result.dtype} on {result.device})"
        )
        compiled = f"; compiled in {cost.compile_seconds:.0f} s" if cost.compile_seconds is not None else ""
        lines.append(line + compiled)
    if result.speedup is not None:
        lines.append(
            f"student over teacher: {result.speedup.wall_clock:.3g} times as fast, "
            f"{result.speedup.nfe:.3g} times fewer network evaluations"
        )
    return lines
