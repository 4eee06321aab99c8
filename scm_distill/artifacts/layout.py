"""Names and places of what lies on disk: in a run folder, in an export, and where a student that was named is."""

from dataclasses import dataclass
from pathlib import Path

from scm_distill import config
from scm_distill.artifacts.export_record import ExportRecord
from scm_distill.artifacts.files import Damaged
from scm_distill.errors import UserError

# of a run folder
RECIPE = "config.yaml"
METRICS = "metrics.jsonl"
ENVIRONMENT = "env.json"
CHECKPOINTS = "checkpoints"  # folders step-N
PREVIEWS = "samples"  # step-N.png
EXPORT = "export"
REPORT = "report.html"
EXPORT_CHECK = "export_check.json"

# of a checkpoint
STATE = "state.json"

# of an export
INDEX = "model_index.json"  # by diffusers
FACTS = "scm_distill.json"
SEARCH = "t_mid_search.json"
EVALUATION = "eval.json"
CARD = "README.md"
GALLERY = "samples"
WEIGHTS = "student.safetensors"  # of the denoiser alone
ADAPTER = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for


@dataclass(frozen=True)
class StudentFolder:
    """A student on this machine: its pipeline folder, and the run folder that it came out of, where that is known."""

    export: Path
    run: Path | None


def locate(model: str) -> StudentFolder | None:
    """The student in a run folder or an export folder; None for anything else, such as a Hub id.

    Raises UserError for a run without an export.
    """
    path = Path(model).expanduser()
    for export in (path, path / EXPORT):
        if (export / INDEX).is_file():
            return StudentFolder(export, run_of(export))
    if (path / RECIPE).is_file():
        raise UserError(
            f"Run {model} has no export yet.",
            f"Finish it: scm-distill train {path / RECIPE} -o {path} --resume auto",
        )
    return None


def local_student(model: str) -> StudentFolder:
    """As `locate`, of what is to be on this machine. Raises UserError for anything else."""
    found = locate(model)
    if found is None:
        raise UserError(
            f"{model} is no student: neither a run folder nor a pipeline folder.", "Give the folder that `train` wrote."
        )
    return found


def pipeline_of(model: str) -> str:
    """What diffusers loads a student from: the export of a run folder, or `model` as it stands."""
    found = locate(model)
    return str(found.export) if found else model


def run_of(folder: Path) -> Path | None:
    """The run folder that `folder` is, or whose export it is."""
    path = folder.expanduser().resolve()
    if (path / INDEX).is_file() and path.name == EXPORT:
        path = path.parent
    return path if (path / RECIPE).is_file() else None


def recipe_of(model: str) -> config.Recipe | None:
    """The recipe of a run folder, or of the run that an export lies in. Raises UserError for a damaged one."""
    run = run_of(Path(model))
    return config.read(str(run / RECIPE)) if run else None


def export_record(model: str) -> ExportRecord:
    """scm_distill.json of a student by run folder, export folder or Hub id. Raises UserError where it has none."""
    folder = pipeline_of(model)
    path = Path(folder).expanduser() / FACTS
    if not path.parent.is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(folder, FACTS))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise _no_student(model) from error
    try:
        return ExportRecord.read(path)
    except Damaged as error:
        raise (error if path.exists() else _no_student(model)) from error


def _no_student(model: str) -> UserError:
    return UserError(
        f"{model} is no few-step student: it has no {FACTS}.", "Give a run folder, or the export folder in it."
    )
