"""`sample`: open student and teacher, draw batch by batch, write what is finished, say what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scm_distill.artifacts import layout
from scm_distill.artifacts.claim import claimed
from scm_distill.artifacts.files import atomically
from scm_distill.commands import sample_index, short_of_memory
from scm_distill.commands.arguments import AnyPath, class_text, refuse_below
from scm_distill.commands.quiet import quiet
from scm_distill.commands.results import SampleResult, SamplingCost, Speedup
from scm_distill.data import pictures
from scm_distill.data.saving import save
from scm_distill.errors import UserError
from scm_distill.progress import Reporter, Silent
from scm_distill.sampling import open
from scm_distill.sampling.backends import Condition
from scm_distill.sampling.open import name_of, teacher_of
from scm_distill.sampling.request import SampleRequest, device_of, dtype_of
from scm_distill.sampling.sampler import Sampler
from scm_distill.teachers import safety

COLUMNS = 8  # of a grid, at most
_KEY = {"prompt": "prompt", "labels": "label"}  # of a condition in the index, by what drives the call


@dataclass(frozen=True)
class _Draw:
    """What one sampler is to draw: the name of its file, a seed and a condition for each sample."""

    who: str  # student or teacher
    sampler: Sampler
    steps: int
    files: list[str]
    seeds: list[int]
    conditions: list[Condition]


@quiet()
@short_of_memory.told("Out of memory", "Lower --batch, try --dtype bf16, or another --device.")
def sample(
    model: AnyPath,
    *,
    prompts: str | Sequence[str] = (),
    prompts_file: AnyPath | None = None,
    classes: str | Sequence[int] | None = None,
    n: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    batch: int | None = None,
    compare: AnyPath | None = None,
    dtype: str = "fp32",
    device: str | None = None,
    compile: bool = False,
    format: str | None = None,
    fps: int | None = None,
    grid: bool = False,
    out: AnyPath | None = None,
    report: Reporter | None = None,
) -> SampleResult:
    """Draw samples of a student into the folder `out`: PNG, MP4, GIF or WAV, with an index.jsonl of prompts and seeds.

    `model` is a run folder, an exported pipeline folder or a Hub id. `prompts` and `classes` (numbers, or text such as
    "0-9") are taken in turn; `prompts_file` holds one a line. Sample i depends on `seed` + i and its condition alone.
    `n` defaults to one a prompt, else 16; `steps` to what the student was made for; `out` to samples/ in a run folder,
    else ./samples. `compare` names a teacher to sample from the same seeds, "teacher" the run's own; `grid` also writes
    grid.png. `dtype` is fp32, bf16 or fp16; `format` (mp4, gif) and `fps` are of clips.

    What is finished stays after a KeyboardInterrupt. Raises UserError.
    """
    refuse_below(1, n=n, steps=steps, batch=batch, fps=fps)
    refuse_below(0, seed=seed)
    report, model = report or Silent(), str(model)
    texts, file = [prompts] if isinstance(prompts, str) else list(prompts), str(prompts_file) if prompts_file else None
    request = SampleRequest(texts, file, class_text(classes), n, seed)
    request.check()
    place = device_of(device)
    options: open.SamplerOptions = {
        "dtype": dtype_of(dtype), "device": place, "batch": batch, "compile": compile, "report": report,
    }  # fmt: skip
    student = open.open_student(model, **options)
    seeds, conditions = request.samples(student.facts, model)
    made_for = student.facts.default_steps
    student.check(steps := steps or made_for)
    ending = sample_index.suffix_of(student.facts, format)

    def files(suffix: str) -> list[str]:
        return [f"seed-{number:05d}{suffix}{ending}" for number in seeds]

    draws = [_Draw("student", student, steps, files(""), seeds, conditions)]
    if compare:
        teacher, _ = teacher_of(str(compare), model, student, options)
        draws.append(_Draw("teacher", teacher, teacher.facts.default_steps, files("-teacher"), seeds, conditions))
    if steps != made_for:
        report.say(f"this student was made for {made_for} steps; {steps} may look worse")
    inside = Path(model) / layout.PREVIEWS if (Path(model) / layout.RECIPE).is_file() else Path("samples")
    folder = Path(out) if out is not None else inside
    costs = _write(draws, folder, fps, report, grid=grid)
    mine, its = costs["student"], costs.get("teacher")
    return SampleResult(
        folder=folder,
        samples=len(seeds),
        device=name_of(place),
        dtype=dtype,
        student=mine,
        teacher=its,
        grid=folder / "grid.png" if grid else None,
        speedup=Speedup(its.ms_per_sample / mine.ms_per_sample, its.nfe / mine.nfe) if its else None,
    )


def _write(
    draws: Sequence[_Draw], folder: Path, fps: int | None, report: Reporter, *, grid: bool
) -> dict[str, SamplingCost]:
    """Draw and write all samples, and grid.png; the costs by who drew."""
    index = sample_index.Index(folder, [name for draw in draws for name in draw.files])
    index.check(report)
    costs, sheets = {}, []
    with claimed(folder) as keep:
        try:
            for draw in draws:
                costs[draw.who], shown = _drawn(draw, folder, index, fps, report, grid=grid)
                sheets.append(shown)
                if len(draws) > 1:
                    draw.sampler.release()
            if grid:
                columns = min(len(draws[0].seeds), COLUMNS)
                with atomically(folder / "grid.png") as beside:
                    _side_by_side([pictures.grid(shown, columns) for shown in sheets]).save(beside)
        except KeyboardInterrupt:
            if index.begun:
                keep.append(True)
                report.say(f"what is finished stays in {folder}")
            raise
    return costs


def _drawn(
    draw: _Draw, folder: Path, index: sample_index.Index, fps: int | None, report: Reporter, *, grid: bool
) -> tuple[SamplingCost, list[Image.Image]]:
    """Draw and write one sampler's samples; their cost, and with `grid` a picture of each."""
    sampler, done, nfe, seconds, shown = draw.sampler, 0, 0.0, 0.0, []
    facts, flags = sampler.facts, list[bool]()
    report.begin(draw.who, len(draw.seeds))
    for part in sampler.stream(draw.seeds, draw.conditions, draw.steps):
        for one, flagged in zip(part.samples, part.flagged, strict=True):
            name, condition = draw.files[done], draw.conditions[done]
            save(one, folder / name, rate=facts.rate, fps=fps or facts.fps)
            said: dict[str, Any] = {} if condition is None else {_KEY[facts.driver]: condition}
            said |= {"flagged": True} if flagged else {}
            flags.append(flagged)
            index.add(sample_index.Entry(file=name, seed=draw.seeds[done], **said, steps=draw.steps, by=draw.who))
            shown += [pictures.picture(one)] if grid else []
            done += 1
        nfe, seconds = nfe + part.nfe * len(part.samples), seconds + part.seconds
        report.advance(done, {"ms a sample": 1000 * seconds / done})
    report.end()
    if all(flags):
        raise UserError(
            f"The safety checker of the {draw.who} flagged all {done} samples, and returned black in their place.",
            "Choose other prompts or another --seed.",
            code=1,
        )
    if any(flags):
        report.say(safety.count_text(flags, draw.who))
    cost = SamplingCost(
        scheduler=facts.scheduler,
        steps=draw.steps,
        nfe=nfe / done,
        ms_per_sample=1000 * seconds / done,
        samples_per_second=done / seconds,
        batch=min(sampler.size, done),
        one_by_one=sampler.reason,
        flagged=sum(flags),
        compile_seconds=sampler.compiled_in if sampler.compile else None,
    )
    return cost, shown


def _side_by_side(grids: list[Image.Image]) -> Image.Image:
    """The student's grid, then the teacher's, with a gap."""
    gap = grids[0].width // 32
    canvas = Image.new("RGB", (sum(g.width for g in grids) + gap * (len(grids) - 1), grids[0].height), "white")
    for i, sheet in enumerate(grids):
        canvas.paste(sheet, (i * (sheet.width + gap), 0))
    return canvas
