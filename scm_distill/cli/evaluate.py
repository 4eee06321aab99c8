"""`scm-distill eval`: is the student as good as its teacher, and how much faster."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scm_distill.cli import console, launch
from scm_distill.cli.options import Json, Processes
from scm_distill.errors import UserError

if TYPE_CHECKING:
    from scm_distill.artifacts.evaluation_record import EvaluationRecord


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, an exported pipeline folder, or a Hub id.")],
    teacher: Annotated[str | None, typer.Option(help="Folder, Hub id or builtin:NAME. Default: the run's.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Real samples: folder, .npz, builtin:NAME; or teacher, its own. Default: the run's."),
    ] = None,
    steps: Annotated[
        str, typer.Option(help="Of the student; the teacher takes its default, and these but 1.")
    ] = "1,2,4",
    n: Annotated[
        int | None, typer.Option("-n", "--number", min=8, help="Samples of each. Default: 2048; 6144 of the digits.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sample i is drawn from seed + i.")] = 0,
    extractor: Annotated[
        str | None,
        typer.Option(
            metavar="blocks|digits|inception[:PATH]|MODEL",
            help="What distances are taken on; MODEL: a transformers folder or Hub id, such as facebook/dinov2-large. "
            "Default: digits for the built-in digits, else blocks.",
        ),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="MODEL", help="CLIP folder or Hub id: also the CLIP score.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A prompt a line, taken in turn. Default: the run's data.prompts.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Classes in turn, such as 0-9. Default: all of them.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples a call; halved where memory is short.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = None,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    num_processes: Processes = None,
    max_ratio: Annotated[
        float | None,
        typer.Option(min=0, help="Exit with 1 if the two-step FD is more than this times the teacher's."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File. Default: eval.json in the export.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a student with its teacher: quality by steps, network evaluations and time, side by side.

    Examples: scm-distill eval runs/digits; scm-distill eval runs/sd15 --data photos --extractor facebook/dinov2-large
    """
    os.environ.update(launch.slurm(os.environ))
    with console.user_errors(as_json=as_json):
        counts = _counts(steps)
        if max_ratio is not None and 2 not in counts:
            raise UserError("--max-ratio is about two steps, and --steps has no 2.", "Add 2 to --steps.")
        if num_processes:
            launch.refuse_nested(os.environ)
        if num_processes and num_processes > 1:
            given = {
                "--teacher": teacher, "--data": data, "--steps": steps, "-n": n, "--seed": seed,
                "--extractor": extractor, "--clip": clip, "--prompts": prompts, "--classes": classes,
                "--batch": batch, "--device": device, "--dtype": dtype, "--max-ratio": max_ratio, "--out": out,
            }  # fmt: skip
            options = [part for flag, value in given.items() if value is not None for part in (flag, str(value))]
            raise typer.Exit(launch.run(["eval", *options, *["--json"] * as_json, "--", model], num_processes))
        from scm_distill.commands import evaluate

        with console.Live(quiet=as_json or int(os.environ.get("RANK", "0")) > 0) as live:
            result = evaluate.evaluate(
                model, teacher=teacher, data=data, steps=counts, n=n, seed=seed, extractor=extractor, clip=clip,
                prompts=prompts, classes=classes, batch=batch, device=device, dtype=dtype, out=out, report=live,
            )  # fmt: skip
        if result is None:  # a worker process; the main one shows the result
            return
        record = result.record
        if as_json:
            console.result_json(record.content())
        else:
            _show(record)
            console.hint(f"scm-distill push {model} NAME/MODEL --dry-run")
        if max_ratio is not None and not (record.ratios and record.ratios.fd <= max_ratio):
            got = f"is {record.ratios.fd:.3g} times the teacher's" if record.ratios else "could not be measured"
            raise UserError(
                f"The two-step distance {got}; --max-ratio allows {max_ratio:g}.",
                "Train longer, or look at report.html for where it falls short.", code=1,
            )  # fmt: skip


def _counts(steps: str) -> tuple[int, ...]:
    parts = [part.strip() for part in steps.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--steps {steps!r} is no list of numbers of steps.", "Write for example --steps 1,2,4.")
    return tuple(sorted({int(part) for part in parts}))


def _show(record: "EvaluationRecord") -> None:
    from scm_distill.artifacts.evaluation_record import METRICS

    used = [name for name in METRICS if name in record.rows[0].metrics]
    columns = ("", "steps", "evals", "ms", *(METRICS[name].heading for name in used))
    table = [
        [
            row.who, str(row.steps), f"{row.nfe:g}", f"{row.ms_per_sample:.3g}",
            *(f"{row.metrics[name]:.3g}" for name in used),
        ]
        for row in record.rows
    ]  # fmt: skip
    title = f"{record.n} samples of each against {record.data}, features: {record.extractor.name}"
    console.table(title, columns, table)
    full = max(row.steps for row in record.rows if row.who == "teacher")
    for line in record.notes:
        console.say(line)
    if ratios := record.ratios:
        console.result(
            f"two steps: {ratios.fd:.3g} x the distance of the teacher's {full} steps, "
            f"{ratios.nfe:.3g} x fewer network evaluations, {ratios.wall_clock:.3g} x faster "
            f"({record.device}, {record.dtype})"
        )
