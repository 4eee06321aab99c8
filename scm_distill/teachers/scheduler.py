"""Reading a stock scheduler: its kind, the meaning of its model output, and the denoiser's clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from scm_distill.maths.clocks import S_MIN, Clock, DiscreteSchedule, EDMClock, FlowClock, flow_to_t
from scm_distill.maths.schedules import Prediction

Kind = Literal["vp", "flow", "edm"]

# Schedulers that can be followed: their x_0 is that of the model output, and a step without noise is one of DDIM.
FOLLOWED = ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "EulerDiscreteScheduler")
TINY = 2.0**-24  # what some schedulers keep in place of the zero of a zero-terminal-SNR schedule

_OTHER_SAMPLER = (
    "If its denoiser is an ordinary one: pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config), then "
    "pipe.save_pretrained(FOLDER), and give that folder."
)
# Schedulers whose networks are no teachers here, or that do not sample: why, and what to do.
_NO_TEACHER = {
    **dict.fromkeys(
        ("AmusedScheduler", "VQDiffusionScheduler", "BlockRefinementScheduler", "EntropyBoundScheduler",
         "DiscreteDDIMScheduler"),
        ("samples tokens, which have no noise level between two others", ""),
    ),
    **dict.fromkeys(
        ("CMStochasticIterativeScheduler", "SCMScheduler", "FlowMapEulerDiscreteScheduler", "PiflowScheduler"),
        ("samples a network that was already distilled to few steps", ""),
    ),
    **dict.fromkeys(
        ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"),
        ("goes from samples to noise", _OTHER_SAMPLER),
    ),
    "RePaintScheduler": ("fills in a given image", _OTHER_SAMPLER),
}  # fmt: skip


class Unreadable(Exception):
    """Why a scheduler cannot be read, as a clause of a sentence about the pipeline; `fix`: what to do, if anything."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.fix = fix


@dataclass(frozen=True)
class Schedule:
    """A native schedule: its kind, the prediction of its model output, and its `clock(sigma_d)`.

    `sign` is -1 where the scheduler's model output is minus that prediction; `sigma_data` is the sigma_d that the
    preconditioning of an EDM network fixes, None for others. `alphas_cumprod` (K,) is that of the discrete kind. `note`
    is the clock in words.
    """

    kind: Kind
    prediction: Prediction
    clock: Callable[[float], Clock]
    sign: float = 1.0
    sigma_data: float | None = None
    alphas_cumprod: Tensor | None = None
    note: str = ""

    def t_of(self, tau: float, sigma: float | None, sigma_d: float) -> float:
        """The TrigFlow time of a stock step: by its `sigma` where the scheduler has one, else by the denoiser's `tau`.

        Some pipelines round tau.
        """
        if sigma is not None and self.kind == "flow":
            return float(flow_to_t(torch.tensor(sigma, dtype=torch.float64), sigma_d))
        if sigma is not None and self.kind == "edm":
            return float(torch.tensor(sigma / sigma_d, dtype=torch.float64).arctan())
        return float(self.clock(sigma_d).time(torch.tensor(tau, dtype=torch.float64)))


def kind_of(scheduler: Any) -> Kind:
    """The kind of a scheduler, by class and configuration. Raises Unreadable.

    Flow comes first, since flow schedulers may have alphas_cumprod.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if name in _NO_TEACHER:
        why, fix = _NO_TEACHER[name]
        raise Unreadable(f"its {name} {why}", fix)
    if (
        name.startswith("FlowMatch")
        or name == "LTXEulerAncestralRFScheduler"
        or config.get("use_flow_sigmas")
        or config.get("prediction_type") == "flow_prediction"
    ):
        return "flow"
    if name.startswith(("EDM", "CosineDPM")) or config.get("timestep_type") == "continuous":
        return "edm"
    if isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor):
        return "vp"
    raise Unreadable(
        f"its {name} has none of the three kinds of noise levels that are known: a table (alphas_cumprod), those of a "
        "flow, or EDM's"
    )


def discrete(scheduler: Any) -> Schedule:
    """The schedule of a variance-preserving scheduler with a table of alphas_cumprod. Raises Unreadable."""
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise Unreadable(f"its scheduler predicts {prediction!r}")
    bar = scheduler.alphas_cumprod.double().cpu().clone()
    if config.get("rescale_betas_zero_snr") and bar[-1] <= TINY:
        bar[-1] = 0
    if len(bar) < 2 or not bar.diff().lt(0).all():
        raise Unreadable("its alphas_cumprod do not fall from step to step")
    if prediction == "epsilon" and bar[-1] <= 0:
        raise Unreadable(
            "it predicts epsilon on a zero-terminal-SNR schedule, where epsilon says nothing about x_0",
            "Unless its network was trained so, remove rescale_betas_zero_snr from scheduler/scheduler_config.json.",
        )
    return Schedule("vp", prediction, lambda sigma_d: DiscreteSchedule(bar, sigma_d), alphas_cumprod=bar)


def edm(scheduler: Any, taus: Sequence[float], sigmas: Sequence[float]) -> Schedule:
    """The schedule of an EDM scheduler, from the denoiser's times and the scheduler's sigmas over a stock call.

    Raises Unreadable where they fit neither of the two known clocks.
    """
    config = scheduler.config
    prediction, data = config.get("prediction_type", "epsilon"), float(config.get("sigma_data", 1.0))
    if prediction not in ("epsilon", "v_prediction"):
        raise Unreadable(f"its EDM scheduler predicts {prediction!r}")
    if prediction == "epsilon" and "sigma_data" not in config:
        raise Unreadable("it predicts epsilon at continuous noise levels, without EDM's preconditioning")
    low, high = float(config.get("sigma_min") or min(sigmas)), float(config.get("sigma_max") or max(sigmas))
    sigma, tau = torch.tensor(sigmas, dtype=torch.float64), torch.tensor(taus, dtype=torch.float64)
    for kind in ("log", "arctan"):
        clock = EDMClock(kind, data, low, high)
        if (clock.network_time((sigma / data).arctan()) - tau).abs().max() < 1e-4:
            sign = 1.0 if prediction == "epsilon" else -1.0  # c_out of diffusers is +, and - for v_prediction
            return Schedule("edm", "edm", partial(_constant, clock), sign, data, note=f"tau = {kind} of sigma")
    raise Unreadable("the times of its EDM denoiser are neither ln(sigma)/4 nor arctan(sigma)")


def _constant(clock: Clock, _: float) -> Clock:
    """`clock`, for any sigma_d."""
    return clock


def flow(scheduler: Any, taus: Sequence[float], sigmas: Sequence[float]) -> Schedule:
    """The schedule of a rectified flow, from the denoiser's times and the scheduler's sigmas over a stock call.

    tau is affine in s where that fits, else interpolated between the pairs of the call. Raises Unreadable where tau
    does not increase with s.
    """
    prediction = scheduler.config.get("prediction_type", "flow_prediction")
    if prediction != "flow_prediction":
        raise Unreadable(f"its scheduler has the noise levels of a flow, and predicts {prediction!r}")
    inverted = bool(scheduler.config.get("invert_sigmas", False))
    s = torch.tensor(sigmas, dtype=torch.float64)
    tau = torch.tensor(taus, dtype=torch.float64)
    sign = -1.0 if inverted else 1.0
    if inverted:
        s = 1 - s
    integers = bool((tau == tau.round()).all())
    slope, offset = _affine(s, tau)
    for a, b in ((1000.0, 0.0), (1.0, 0.0), (-1.0, 1.0), (-1000.0, 1000.0), (slope, offset)):
        off = (a * s + b - tau).abs().max()
        if off < (1.0 + 1e-6 if integers and abs(a) > 100 else 2e-4 * abs(a)):
            note = f"tau = {a:.6g} s" + (f" + {b:.6g}" if b else "")
            ends = min(S_MIN, float(s[s > 0].min()))  # some calls end below
            return Schedule("flow", "flow", partial(FlowClock, a, b, s_min=ends), sign, note=note)
    order = s.argsort()
    s, tau = s[order], tau[order]
    if len(s) < 2 or not (s.diff().gt(0).all() and tau.diff().gt(0).all()):
        raise Unreadable("the times of its denoiser do not rise with the scheduler's sigmas")
    low = float(s[0])
    scale = float(tau[-1])
    return Schedule(
        "flow", "flow", lambda d: FlowClock(scale, 0.0, d, s_min=low, table=(s, tau)), sign, note="tau = table of s"
    )


def _affine(s: Tensor, tau: Tensor) -> tuple[float, float]:
    """Slope and offset of tau over s, by least squares."""
    design = torch.stack([s, torch.ones_like(s)], 1)
    slope, offset = torch.linalg.lstsq(design, tau[:, None]).solution.flatten().tolist()
    return slope, offset
