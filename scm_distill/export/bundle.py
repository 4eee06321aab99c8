"""Export: search t_mid, put it on the stock scheduler's grid, write the folder, check it against ourselves."""

from dataclasses import dataclass
from pathlib import Path

from scm_distill.artifacts import files, layout, private
from scm_distill.artifacts.export_record import Arguments, Distance, ExportRecord, Searched, SearchRecord
from scm_distill.artifacts.files import atomically, save_tensors
from scm_distill.errors import UserError
from scm_distill.export import facts, gallery, lora, self_check, stock
from scm_distill.export.schedulers import Grid
from scm_distill.export.self_check import TOLERANCE, Checked, check
from scm_distill.export.t_mid import data_reference, distance_table, distance_to_data, grids
from scm_distill.models.network import Network
from scm_distill.progress import Reporter
from scm_distill.publish import card, licence
from scm_distill.training.run import Trained


@dataclass(frozen=True)
class Exported:
    """Where the student is, and what was measured on the way."""

    folder: Path
    t_max: float  # radians
    t_mid: float  # radians
    table: tuple[Distance, ...]
    search: tuple[Searched, ...]
    difference: float  # stock diffusers against ourselves, relative (pixels: largest)
    call: Arguments  # of the two-step stock call, beside the prompt


def write(trained: Trained, out: Path, report: Reporter) -> Exported:
    """Write `out` (the run's export folder), complete or not at all. Raises UserError if it does not check."""
    network = trained.student
    files.recover(out)
    card.check(out / layout.CARD)
    reference, eps, cond = data_reference(trained)
    report.begin("export", 3)
    found = grids(trained)
    search = tuple(
        Searched(t_mid=grid.t_mid, distance=distance_to_data(network, reference, eps, cond, (grid.t_max, grid.t_mid)))
        for grid in found
    )
    best = found[min(range(len(found)), key=lambda i: search[i].distance)]
    report.say("t_mid search, distance to the data: " + ", ".join(f"{s.t_mid:.3g}: {s.distance:.4g}" for s in search))
    report.advance(1)
    table = distance_table(trained, reference, eps, cond, best)
    report.advance(2)
    with atomically(out) as beside:
        call, checked = fill(beside, trained, best, table, search, report)
        card.write(beside, out / layout.CARD)
    report.advance(3)
    report.end()
    report.say(f"stock diffusers reproduces the student's two steps to {checked.relative:.1e}")
    return Exported(out, best.t_max, best.t_mid, table, search, checked.relative, call)


def fill(
    folder: Path,
    trained: Trained,
    best: Grid,
    table: tuple[Distance, ...],
    search: tuple[Searched, ...],
    report: Reporter,
) -> tuple[Arguments, Checked]:
    """Write all of an export but its card; the two-step call, and the check. Raises UserError if it does not check."""
    network = trained.student
    metadata = {
        "base_model": trained.loaded.teacher.name,
        "sigma_d": repr(network.sigma_d),
        "t_max": repr(best.t_max),
        "t_mid": repr(best.t_mid),
        "steps": "2",
        "prediction_type": network.prediction,
    }
    student = self_check.alone(network)
    call = save(trained, student, best, folder, metadata, report)
    private.forget_paths(folder)
    licence.copy_licence(trained.loaded.teacher.source.repo, folder)
    SearchRecord(chosen=best.t_mid, search=search).write(folder / layout.SEARCH)
    checked = check(folder, student, best, trained, call)
    if not checked.relative <= TOLERANCE:
        raise UserError(
            f"The export differs from the student by {checked.relative:.2e} when stock diffusers runs it.",
            "This is a fault of scm-distill: please report it with the run's config.yaml.",
            code=1,
        )
    adapter = lora.write(folder, trained, student, best, call, report)
    gallery_samples = gallery.write(folder, trained, call, report)
    known = facts.collect(folder, trained, best, table, search, checked, gallery_samples)
    ExportRecord(call=call, lora=adapter, facts=known).write(folder / layout.FACTS)
    files.follow_umask(folder)
    return call, checked


def save(
    trained: Trained, student: Network, best: Grid, folder: Path, metadata: dict[str, str], report: Reporter
) -> Arguments:
    """Write the pipeline folder and student.safetensors; the arguments of its two-step call."""
    made = stock.made(trained, student, best, report)
    stock.pipeline(trained, made).save_pretrained(str(folder))
    save_tensors(made.net.state_dict(), folder / layout.WEIGHTS, {"format": "pt", **metadata})
    return made.call
