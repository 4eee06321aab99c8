"""What lies on disk: the names and places of the files of a run folder and of an export, and how they are read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_distill import config
from scm_distill.errors import UserError

RUNS = "teacher"  # as a name: the teacher that the student came from


def recipe_of(model: str) -> config.Recipe | None:
    """The recipe of a run folder, or of the run that an export lies in."""
    run = run_of(model)
    return config.read(str(run / "config.yaml")) if run else None


def facts_of(model: str) -> dict[str, Any]:
    """What an export says of itself; empty where it is an older one."""
    return dict(written(locate(model))["facts"])


EXPORT = "export"  # of a run folder


def locate(model: str) -> str:
    """The pipeline of a run folder is its export; anything else is meant as it stands."""
    path = Path(model).expanduser()
    if (path / "config.yaml").is_file() and not (path / "model_index.json").is_file():
        if not (path / EXPORT / "model_index.json").is_file():
            raise UserError(
                f"Run {model} has no export yet.",
                f"Finish it: scm-distill train {path / 'config.yaml'} -o {path} --resume auto",
            )
        return str(path / EXPORT)
    return model


def run_of(model: str) -> Path | None:
    """The run that `model` is, or whose export it is."""
    path = Path(model).expanduser().resolve()
    if (path / "model_index.json").is_file():
        path = path.parent if path.name == EXPORT else path
    return path if (path / "config.yaml").is_file() else None


@dataclass(frozen=True)
class StudentFolder:
    """Where a student lies: its pipeline folder, and its run where that is known."""

    export: Path
    run: Path | None

    @property
    def facts(self) -> dict[str, Any]:
        """What the card is made of. Raises UserError for an export that has none."""
        return read_facts(self.export)[1]


def locate_student(model: str) -> StudentFolder:
    """A run folder, or an export folder. Raises UserError for anything else."""
    path = Path(model).expanduser()
    for export in (path, path / EXPORT):
        if (export / "model_index.json").is_file():
            return StudentFolder(export, run_of(str(export)))
    if (path / "config.yaml").is_file():
        raise UserError(f"The run {model} holds no export yet.", "Let it finish: its command, with --resume auto.")
    raise UserError(
        f"{model} is no student: neither a run folder nor a pipeline folder.", "Give the folder that `train` wrote."
    )


def written(folder: str) -> dict[str, Any]:
    """What an export, in a folder or on the Hub, says of itself. Raises UserError where it says nothing."""
    path = Path(folder) / CALL
    if not path.is_file() and not Path(folder).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(folder, CALL))
        except (HfHubHTTPError, LocalEntryNotFoundError):
            path = Path(CALL + " of the Hub")
    try:
        said = json.loads(path.read_text())
        return {"call": dict(said["call"]), "facts": dict(said.get("facts", {}))}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder} is no few-step student: it has no {CALL}.", "Give a run folder, or the export folder in it."
        ) from error


FACTS, EVALUATION = "scm_distill.json", "eval.json"


def read_facts(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of an export's two-step call, and its facts, `lora` among them. Raises UserError for none."""
    path = folder / FACTS
    known = _read_json(path) if path.is_file() else {}
    if "facts" not in known:
        raise UserError(
            f"{folder} has no facts to write a card from: {FACTS} is missing, or of an older version.",
            "Export it again: scm-distill train RUN/config.yaml -o RUN --resume auto",
        )
    return known["call"], {**known["facts"], "lora": known.get("lora")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}", "Remove it, and make it again.") from error


BUCKETS = (0.4, 0.8, 1.2)  # borders in t of the four buckets in which norms are logged


RUNS = "teacher"  # as a name: the teacher that the student came from


CALL = FACTS  # in an export: the arguments of its two-step call, and what its card says
