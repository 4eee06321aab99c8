"""`scm-distill inspect`: what a teacher is, and the recipe to start from."""

from typing import Annotated, Any

import typer

from scm_distill.cli import console
from scm_distill.cli.options import Json
from scm_distill.commands.results import InspectResult, TangentCheck


def inspect(
    teacher: Annotated[str, typer.Argument(help="A pipeline folder, a Hub id, or a single .safetensors file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="As in train; for example -s teacher.call.height=512."),
    ] = None,
    export_check: Annotated[
        bool, typer.Option("--export-check/--no-export-check", help="Write it as a student, and run that by diffusers.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say what a teacher is, whether it can be distilled, and the recipe to start from.

    Examples: scm-distill inspect builtin:digits/teacher; scm-distill inspect runwayml/stable-diffusion-v1-5 --json
    """
    with console.user_errors(as_json=as_json):
        import yaml

        with console.importing():
            from scm_distill.commands import inspect

        with console.Live(quiet=as_json) as live:
            found = inspect.inspect(teacher, overrides=overrides or (), export_check=export_check, report=live)
        if as_json:
            console.result_json({**_facts(found), "recipe": found.recipe})
            return
        console.facts(_facts(found))
        console.result("")
        console.result(yaml.safe_dump(found.recipe, sort_keys=False).rstrip())
        console.hint("save these lines as my.yaml, then: scm-distill train my.yaml --dry-run")


def _facts(found: InspectResult) -> dict[str, Any]:
    """The rows of the table, which are the keys of the JSON; a row that a teacher has not is left away."""
    export = found.export and {"stock difference": found.export.stock_difference, "call": found.export.call}
    memory = f"{found.training_memory / 2**30:.3g} GiB of weights and states in float32; activations on top"
    facts = {
        "pipeline": found.pipeline,
        "denoiser": found.denoiser,
        "parameters": found.parameters,
        "sample": console.shape(found.sample_shape),
        "prediction": found.prediction,
        "scheduler": found.scheduler,
        "times": f"t from {found.t_min:.4f} to {found.t_max:.4f}; network time {found.network_time}",
        "modality": found.modality,
        "conditions": found.conditions,
        "guidance": found.guidance,
        "verified": found.verified,
        "warning": " ".join(f"{doubt}." for doubt in found.doubts) or None,
        "adaptation": found.adaptation,
        "tangent": _tangent(found.tangent),
        "latent map": found.latent_map,
        "export": export,
        "training memory": memory,
        "verdict": found.verdict,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _tangent(tangent: TangentCheck) -> dict[str, Any]:
    if not tangent.exact:
        return {"exact": False, "why": tangent.why}
    return {"exact": True, "against central difference": tangent.difference, "in": tangent.dtype}
