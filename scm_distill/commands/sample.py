"""What `sample` calls: open student and teacher, draw batch by batch, write what is finished, say what it cost."""

from pathlib import Path
from typing import Any

from PIL import Image

from scm_distill.artifacts import layout
from scm_distill.artifacts.claim import claimed
from scm_distill.artifacts.files import atomically
from scm_distill.commands import sample_index
from scm_distill.commands.quiet import quiet
from scm_distill.data.pictures import grid, picture
from scm_distill.data.saving import save
from scm_distill.progress import Reporter
from scm_distill.sampling import open
from scm_distill.sampling.open import name_of, teacher_of
from scm_distill.sampling.request import SampleRequest, device_of, dtype_of
from scm_distill.sampling.sampler import Sampler

COLUMNS = 8  # of a grid, at most
_KEY = {"prompt": "prompt", "labels": "label"}  # of a condition in the index, by what drives the call


@quiet()
def sample(
    model: str,
    wanted: SampleRequest,
    report: Reporter,
    *,
    steps: int | None = None,
    batch: int | None = None,
    compare: str | None = None,
    dtype: str = "fp32",
    device: str | None = None,
    compiled: bool = False,
    form: str | None = None,
    fps: int | None = None,
    make_grid: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Draw what is wanted and write it; the summary. What is finished stays after Ctrl-C. Raises UserError."""
    wanted.check()
    place = device_of(device)
    options: open.SamplerOptions = {
        "dtype": dtype_of(dtype), "device": place, "batch": batch, "compile": compiled, "report": report,
    }  # fmt: skip
    student = open.open_student(model, **options)
    seeds, conditions = wanted.samples(student.facts, model)
    made_for = student.facts.default_steps
    student.check(steps := steps or made_for)
    ending = sample_index.suffix_of(student.facts, form)
    runs = {"student": (student, steps)}
    if compare:
        teacher, _ = teacher_of(compare, model, student, options)
        runs["teacher"] = (teacher, teacher.facts.default_steps)
    if steps != made_for:
        report.say(f"this student was made for {made_for} steps; {steps} may look worse")
    folder = out or (Path(model) / layout.PREVIEWS if (Path(model) / layout.RECIPE).is_file() else Path("samples"))
    files = {who: [f"seed-{seed:05d}{'' if who == 'student' else '-' + who}{ending}" for seed in seeds] for who in runs}
    index = sample_index.Index(folder, [name for names in files.values() for name in names])
    index.check(report)
    summary: dict[str, Any] = {
        "folder": str(folder), "samples": len(seeds), "device": name_of(place), "dtype": dtype,
    }  # fmt: skip
    sheets = []
    with claimed(folder) as keep:
        try:
            for who, (sampler, count) in runs.items():
                done, rows, seconds, pictures = 0, 0.0, 0.0, []
                report.begin(who, len(seeds))
                for part in sampler.stream(seeds, conditions, count):
                    for drawn in part.samples:
                        name, condition = files[who][done], conditions[done]
                        save(drawn, folder / name, rate=sampler.facts.rate, fps=fps or sampler.facts.fps)
                        said = {} if condition is None else {_KEY[sampler.facts.driver]: condition}
                        index.add(sample_index.Entry(file=name, seed=seeds[done], **said, steps=count, by=who))
                        pictures += [picture(drawn)] if make_grid else []
                        done += 1
                    rows, seconds = rows + part.nfe * len(part.samples), seconds + part.seconds
                    report.advance(done, {"ms a sample": 1000 * seconds / done})
                report.end()
                summary[who] = _cost(sampler, count, rows, seconds, done)
                sheets.append(pictures)
                if len(runs) > 1:
                    sampler.release()
            if make_grid:
                summary["grid"] = str(folder / "grid.png")
                with atomically(folder / "grid.png") as beside:
                    _side_by_side([grid(shown, min(len(seeds), COLUMNS)) for shown in sheets]).save(beside)
        except KeyboardInterrupt:
            if index.begun:
                keep.append(True)
                report.say(f"what is finished stays in {folder}")
            raise
    if compare:
        mine, its = summary["student"], summary["teacher"]
        summary["speedup"] = {
            "wall_clock": its["ms_per_sample"] / mine["ms_per_sample"],
            "nfe": its["nfe"] / mine["nfe"],
        }
    return summary


def _cost(sampler: Sampler, steps: int, rows: float, seconds: float, n: int) -> dict[str, Any]:
    cost: dict[str, Any] = {
        "scheduler": sampler.facts.scheduler,
        "steps": steps,
        "nfe": rows / n,
        "ms_per_sample": 1000 * seconds / n,
        "samples_per_second": n / seconds,
        "batch": min(sampler.size, n),
    }
    if sampler.reason:
        cost["one_by_one"] = sampler.reason
    if sampler.compile:
        cost["compile_seconds"] = sampler.compiled_in
    return cost


def _side_by_side(grids: list[Image.Image]) -> Image.Image:
    """The student's grid, then the teacher's, with a gap."""
    gap = grids[0].width // 32
    whole = Image.new("RGB", (sum(g.width for g in grids) + gap * (len(grids) - 1), grids[0].height), "white")
    for i, sheet in enumerate(grids):
        whole.paste(sheet, (i * (sheet.width + gap), 0))
    return whole
