"""Pixel pipelines of UNet2DModel and a discrete VP scheduler: DDPMPipeline, DDIMPipeline and their like."""

import functools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel
from torch import Tensor, nn

from scm_distill import builtin
from scm_distill.errors import UserError
from scm_distill.maths.schedules import Prediction

READABLE = "a pipeline of a UNet2DModel and a discrete scheduler, such as DDPMPipeline or DDIMPipeline"


@dataclass(frozen=True)
class Teacher:
    """What was read from a checkpoint.

    `net(x_nat, k, **cond, return_dict=False)[0]` is the native prediction at schedule index k, fractions allowed;
    `sample_shape` is (C, H, W), pixels in [-1, 1]; `classes` is None for an unconditional model, whose cond is empty.
    `hub_id` is None for a local folder, so that no path of this machine reaches a card.
    """

    repo: str
    hub_id: str | None
    license: Mapping[str, str]
    net: UNet2DModel
    scheduler: SchedulerMixin
    prediction: Prediction
    alphas_cumprod: Tensor
    sample_shape: tuple[int, int, int]
    classes: int | None

    @property
    def name(self) -> str:
        """A name for cards: the Hub id, the builtin's, or the folder's own name without its path."""
        return self.hub_id or (self.repo if builtin.path(self.repo) else Path(self.repo).resolve().name)

    def cond(self, labels: Tensor | None) -> dict[str, Tensor]:
        """Class labels (B,) as the denoiser's keyword arguments; nothing for an unconditional model."""
        if self.classes is None:
            return {}
        if labels is None:
            raise ValueError("A class-conditional model needs labels.")
        return {"class_labels": labels}


def load(repo: str, *, revision: str | None = None, allow_pickle: bool = False) -> Teacher:
    """Read a pipeline folder, `builtin:NAME` or Hub id, in float32 on the CPU.

    Raises UserError when it is missing, damaged, or of a kind that cannot be read.
    """
    folder = resolve(repo)
    pipeline = _from_pretrained(folder, repo, revision, allow_pickle=allow_pickle)
    return _read(pipeline, repo, hub_id=None if Path(folder).is_dir() else repo)


def resolve(repo: str) -> str:
    """Turn `builtin:NAME` into the packaged folder, and check that a local path is a pipeline folder."""
    if packaged := builtin.path(repo):
        if not packaged.is_dir():
            raise UserError(f"This package has no teacher {repo!r}.", "The one that ships is builtin:digits/teacher.")
        return str(packaged)
    path = Path(repo).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise UserError(
                f"{repo} is no diffusers pipeline folder: it has no model_index.json.",
                "Give the folder that save_pretrained of a pipeline wrote, or a Hub id.",
            )
        return str(path)
    if path.exists() or repo.startswith(("/", "./", "../", "~")) or repo.count("/") != 1:
        raise UserError(f"There is no pipeline folder {repo}.", "Check the path, or give a Hub id such as org/name.")
    return repo


def _from_pretrained(folder: str, repo: str, revision: str | None, *, allow_pickle: bool) -> DiffusionPipeline:
    try:
        parts = DiffusionPipeline.load_config(folder, revision=revision)
        _check_parts(parts, repo)  # before gigabytes are downloaded, or a package is asked for that is not installed
        safe = None if allow_pickle else True
        return DiffusionPipeline.from_pretrained(folder, revision=revision, use_safetensors=safe)
    except UserError:
        raise
    except Exception as error:  # anything can come out of a damaged folder or a failed download
        reason = " ".join(str(error).split())
        if "safetensors" in reason and not allow_pickle and "found" in reason:
            fix = "If you trust where it comes from, set teacher.allow_pickle=true to load its .bin weights."
        elif Path(folder).is_dir():
            fix = "Its files are damaged or incomplete: copy or save the pipeline again."
        else:
            fix = "Check the name, the network and `hf auth whoami`; HF_HUB_OFFLINE=1 reads the local cache only."
        where = "" if Path(folder).is_dir() else "there is no such folder, and from the Hub: "
        short = textwrap.shorten(reason, 240, placeholder=" ...")
        raise UserError(f"{repo} could not be loaded: {where}{short}", fix) from error


def _refusal(repo: str, why: str) -> UserError:
    return UserError(f"{repo} cannot be read: {why}.", f"This version reads {READABLE}.")


def _check_parts(config: Mapping[str, Any], repo: str) -> None:
    """Refuse a pipeline whose index names anything but a UNet2DModel and a scheduler."""
    kinds = {name: kind[1] for name, kind in config.items() if isinstance(kind, list | tuple) and kind[1] is not None}
    if set(kinds) != {"unet", "scheduler"} or kinds["unet"] != "UNet2DModel":
        held = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise _refusal(repo, f"{config.get('_class_name', 'its pipeline')} holds {held}")


def _read(pipeline: DiffusionPipeline, repo: str, hub_id: str | None) -> Teacher:
    refuse = functools.partial(_refusal, repo)
    net, scheduler = cast(UNet2DModel, pipeline.components["unet"]), pipeline.components["scheduler"]
    if not hasattr(scheduler, "alphas_cumprod"):
        raise refuse(f"{type(scheduler).__name__} has no alphas_cumprod")
    config = cast(Any, scheduler).config
    if config.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction", "sample"):
        raise refuse(f"its scheduler predicts {config.prediction_type!r}")
    bar = cast(Any, scheduler).alphas_cumprod.double()
    if len(bar) < 2 or not bar.diff().lt(0).all():
        raise refuse("its alphas_cumprod do not fall from step to step")
    if config.get("prediction_type", "epsilon") == "epsilon" and bar[-1] <= 0:
        raise refuse("it predicts epsilon on a zero-terminal-SNR schedule, where epsilon says nothing about x_0")
    if net.config["time_embedding_type"] != "positional":
        raise refuse(f"its time embedding is {net.config['time_embedding_type']!r}, not a sinusoid of the step")
    if net.config["out_channels"] != net.config["in_channels"]:
        raise refuse("it predicts a variance beside the mean")
    if net.config.get("class_embed_type") is not None:
        raise refuse(f"its class embedding is {net.config['class_embed_type']!r}, not a table of classes")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        raise refuse("it has BatchNorm, whose statistics forward AD would disturb")
    if net.config["in_channels"] not in (1, 3):
        raise refuse(f"its images have {net.config['in_channels']} channels, neither grey nor RGB")
    size = net.config["sample_size"]
    if size is None:
        raise refuse("its config has no sample_size")
    height, width = (size, size) if isinstance(size, int) else size
    return Teacher(
        repo=repo,
        hub_id=hub_id,
        license=_license(repo, hub_id),
        net=net.eval().requires_grad_(False),
        scheduler=cast(SchedulerMixin, scheduler),
        prediction=config.get("prediction_type", "epsilon"),
        alphas_cumprod=bar,
        sample_shape=(net.config["in_channels"], height, width),
        classes=net.config.get("num_class_embeds"),
    )


def _license(repo: str, hub_id: str | None) -> dict[str, str]:
    """The licence fields of the teacher's own card, as far as they are at hand without another download."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.repocard import metadata_load

    card = try_to_load_from_cache(hub_id, "README.md") if hub_id else Path(resolve(repo)) / "README.md"
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return {}
    metadata = metadata_load(card) or {}
    return {key: str(metadata[key]) for key in ("license", "license_name", "license_link") if key in metadata}
