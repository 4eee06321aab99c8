"""Whether a teacher already samples in a few steps: then there is no ODE to follow, and little to distil.

Some are known by what they are (pipeline class, an export of scm-distill), some are likely by their name, scheduler or
settings, and some show it: where a network's first step ends is where all its steps end.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from scm_distill import builtin, config, teachers
from scm_distill.artifacts import files, layout
from scm_distill.artifacts.files import Damaged
from scm_distill.errors import UserError
from scm_distill.maths.clocks import spaced
from scm_distill.maths.cond import Cond, unguided
from scm_distill.maths.sampling import ode
from scm_distill.maths.trigflow import denoise, diffuse
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher
from scm_distill.teachers.stock_call import DENOISERS

PIPELINES = {  # by class name: what they run
    "LatentConsistencyModelPipeline": "a latent consistency model",
    "LatentConsistencyModelImg2ImgPipeline": "a latent consistency model",
    "ConsistencyModelPipeline": "a consistency model",
    "SanaSprintPipeline": "SANA-Sprint, a consistency model",
    "SanaSprintImg2ImgPipeline": "SANA-Sprint, a consistency model",
}
SCHEDULERS = {  # by class name: those that no other network is sampled with
    "CMStochasticIterativeScheduler": "a consistency model",
    "SCMScheduler": "a consistency model in TrigFlow",
}
SAMPLERS = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")  # usual with few-step networks; right with any
WORDS = {
    "lcm", "tcd", "pcm", "scm", "rcm", "dmd", "dmd2", "turbo", "lightning", "schnell", "hyper", "hypersd", "sprint",
    "fewstep", "instaflow", "perflow", "causvid", "fasthunyuan", "fastwan", "distilled",
}  # fmt: skip
COUNTED = re.compile(r"(?:^|[^a-z0-9])(?:[1-9]|1[0-6])[-_ ]?(?:step|steps|nfe)(?:$|[^a-z])")

STEPS = 8  # of the measurement
ENTRIES, MOST = 4096, 16  # of its samples together, at least; samples, at most
NEAR = 0.6  # see `first_step_error`
NOISE_TIME = 0.5  # radians, at which noise is added to samples: about half their size
TRAINED = 0.8  # of the error of the best filter of white samples: what a network leaves that knows its samples better
LARGE = 1_000_000_000  # parameters of a denoiser that a CPU needs minutes an evaluation for


def refuse(recipe: config.Recipe) -> None:
    """Raise UserError for a teacher that is a few-step network by its folder, before its weights are read."""
    source = recipe.teacher
    if source.allow_few_step or source.repo.endswith(".safetensors"):
        return
    index = teachers.index(source.repo, source.revision)
    if what := _by_index(source.repo, index):
        raise _refusal(source.repo, what)


def judge(recipe: config.Recipe, teacher: Teacher, F: Network, t_max: float) -> tuple[str, ...]:
    """Why a teacher that was read may be a few-step network, a sentence each; empty for an ordinary one.

    `F` is its network, unguided where `F` is given no scale; sampling starts at `t_max` (radians). Raises UserError
    where there is no doubt, unless teacher.allow_few_step is set.
    """
    found = list(_signs(recipe, teacher))
    error = _measured(teacher, F, t_max)
    if error is not None and error < NEAR:
        found.append(
            f"its first step ends within {error:.0%} of the spread of its samples from where {STEPS} steps end"
        )
    told = _told_guidance(teacher)
    sampler = type(teacher.scheduler).__name__
    sure = sampler in SAMPLERS and (told or (error is not None and error < NEAR))
    if sure and not recipe.teacher.allow_few_step:
        raise _refusal(teacher.name, f"a few-step network: {'; '.join(found)}")
    if not found:
        return ()
    return (
        f"{teacher.name} may be a few-step network already: {'; '.join(found)}. Such a network has no ODE that its "
        "student could follow: the model that it was made from is the better teacher",
    )


def _refusal(name: str, what: str) -> UserError:
    return UserError(
        f"{name} is {what}. It samples in a few steps already, and has no ODE that a student could follow.",
        "Give the model that it was made from; teacher.allow_few_step=true trains on this one all the same, as a start "
        "for objective.velocity=data.",
    )


def _by_index(repo: str, index: Mapping[str, object]) -> str | None:
    """What the pipeline `repo` is by its model_index.json and the file of facts beside it, where it is few-step."""
    if (Path(teachers.resolve(repo)) / layout.FACTS).is_file():
        return "a student that scm-distill exported"
    if what := PIPELINES.get(str(index.get("_class_name"))):
        return what
    entry = index.get("scheduler")
    kind = entry[1] if isinstance(entry, list | tuple) and len(entry) == 2 else None
    return f"{SCHEDULERS[kind]}, by its {kind}" if kind in SCHEDULERS else None


def _signs(recipe: config.Recipe, teacher: Teacher) -> Iterator[str]:
    """What in the folder of a teacher is usual for few-step networks, a clause each."""
    for name in dict.fromkeys(_names(recipe.teacher)):
        if word := _word(name):
            yield f"the name {name!r} says {word}"
    scheduler, reading = teacher.scheduler, teacher.reading
    sampler, settings = type(scheduler).__name__, scheduler.config
    if sampler in SAMPLERS or settings.get("stochastic_sampling"):
        yield f"its {sampler} is one for few steps"
    trailing = sampler.startswith("Euler") and settings.get("timestep_spacing") == "trailing"
    if trailing and teacher.prediction == "epsilon":
        yield f"its {sampler} has trailing steps, as SD-Turbo's and SDXL-Turbo's"
    if _told_guidance(teacher):
        yield "its UNet has learnt to be told the guidance scale (time_cond_proj_dim), as LCMs have"
    if reading is None:
        return
    pipeline, options = reading.stock.pipeline, cast(Any, reading.stock.net).config
    kind, fixed = type(pipeline).__name__, not settings.get("use_dynamic_shifting")
    if pipeline.config.get("is_distilled"):
        yield "its model_index.json says is_distilled"
    if kind == "FluxPipeline" and options.get("guidance_embeds") is False and fixed:
        yield "it takes no guidance scale and its times are not shifted by size, as FLUX.1-schnell's"
    if kind == "ZImagePipeline" and fixed and settings.get("shift") == 3:
        yield "its scheduler is shifted by 3, as Z-Image-Turbo's (Z-Image's by 6)"


def _names(source: config.Teacher) -> Iterator[str]:
    """What a teacher is called: by its repository or folder, and by what its files say that it came from."""
    folder = Path(builtin.path(source.repo) or source.repo).expanduser()
    yield _short(source.repo)
    if folder.is_dir():
        for path in (folder / layout.INDEX, *(folder / part / "config.json" for part in DENOISERS)):
            try:
                origin = files.read_json(path).get("_name_or_path")
            except Damaged:  # or there is none
                continue
            if isinstance(origin, str) and origin:
                yield _short(origin)


def _short(name: str) -> str:
    """A Hub id as it is; of a path its last part."""
    return name if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not Path(name).exists() else Path(name).name


def _word(name: str) -> str | None:
    """What in a name says that a network is a few-step one."""
    text = name.lower()
    if counted := COUNTED.search(text):
        return counted.group().strip("-_ /.")
    return next((word for word in re.split(r"[^a-z0-9]+", text) if word in WORDS), None)


def _told_guidance(teacher: Teacher) -> bool:
    """Whether a UNet has an embedding of the guidance scale that was trained; one of zeros changes nothing."""
    layer: Any = getattr(getattr(teacher.net, "time_embedding", None), "cond_proj", None)
    return layer is not None and bool((layer.weight != 0).any())


def _measured(teacher: Teacher, F: Network, t_max: float) -> float | None:
    """`first_step_error` of a teacher on one condition, unguided; None where it shows nothing, or takes too long."""
    parameter = next(F.parameters())
    if parameter.device.type == "cpu" and sum(p.numel() for p in F.parameters()) > LARGE:
        return None
    n = min(MOST, 2 * math.ceil(ENTRIES / (2 * math.prod(teacher.sample_shape))))
    cond: Cond = teacher.cond(torch.zeros(n, dtype=torch.long))
    if teacher.reading is not None:
        first = teacher.reading.reference_steps[0].cond
        told = teacher.convention is not None and teacher.convention.scale_of is not None
        cond = first if told else unguided(first)
    cond = {k: v.to(parameter.device).expand(n, *v.shape[1:]) for k, v in cond.items()}
    g = torch.Generator().manual_seed(0)
    z = F.sigma_d * torch.randn(2, n, *teacher.sample_shape, generator=g).to(parameter.device)
    return first_step_error(F, z, cond, t_max)


@torch.no_grad()
def first_step_error(F: Network, z: Tensor, cond: Cond, t_max: float) -> float | None:
    """How far the first step of a network ends from where all end, over the spread of those ends; both rms.

    `z` (2, N, ...) ~ N(0, sigma_d^2 I) are starting noises and others, N is even and `cond` the same for all. None for
    a network that denoises its own samples no better than white noise could be denoised, as one with random weights.

    A diffusion model's first step is the mean of all that a noise could become. Its error is then the spread itself, 1,
    or by the law of total variance sqrt(1 - V) where that step knows a share V of the variance; errors of a prediction
    of noise are amplified at t_max and add to it. A consistency model is right at once; but it is no velocity, and the
    steps drift away from that: 0.45 where data are Gaussian. The digits: teacher 4.3 (0.8 at 1.45 radians, where
    nothing is amplified), student 0.34.
    """
    sigma_d, n = F.sigma_d, z.shape[1]

    def f(x: Tensor, time: float) -> Tensor:
        t = torch.full((n,), time, dtype=torch.float64, device=x.device)
        return denoise(x, F(x / sigma_d, t, cond), t.to(x.dtype), sigma_d)

    times = spaced(F.clock, t_max, STEPS)
    ends = ode(lambda x, t: F(x, t, cond), z[0], times, sigma_d, heun=False)
    noised = diffuse(ends, z[1], torch.full((n,), NOISE_TIME, device=ends.device, dtype=ends.dtype))
    size, noise = _rms(ends), math.tan(NOISE_TIME) * sigma_d
    best_of_white = size * noise / math.hypot(size, noise)  # rms error of the Wiener filter
    spread = _rms(ends[0::2] - ends[1::2]) / math.sqrt(2)
    if not (_rms(f(noised, NOISE_TIME) - ends) < TRAINED * best_of_white and spread > 0):
        return None
    return _rms(f(z[0], t_max) - ends) / spread


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
