"""A right network is read whatever sampler its folder names; every scheduler class of diffusers is read or refused."""

import functools
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
import zoo
from conftest import wide
from diffusers import DDIMScheduler, SchedulerMixin, schedulers
from teachers.published_schedulers import PUBLISHED
from torch import nn

from scm_distill.errors import UserError
from scm_distill.models.network import Network
from scm_distill.teachers import reading as traced_reading
from scm_distill.teachers import stock_call
from scm_distill.teachers.reading import Reading
from scm_distill.teachers.scheduler import Unreadable, kind_of
from scm_distill.training.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")

Settings = dict[str, Any]
SD: Settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
ON_FLOW: Settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}

DISCRETE = (
    "DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete",
    "KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep",
    "UniPCMultistep", "SASolver", "LCM", "TCD", "DDIMParallel", "DDPMParallel", "UnCLIP", "CogVideoXDDIM",
    "CogVideoXDPM",
)  # fmt: skip
EDM = ("EDMEuler", "EDMDPMSolverMultistep", "CosineDPMSolverMultistep")
FLOW_ALONE = (
    "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM", "LTXEulerAncestralRF", "Helios", "HeliosDMD",
)  # fmt: skip
FLOW_TOO = (
    "UniPCMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep", "SASolver",
)  # fmt: skip
FLOW: dict[str, Settings] = {name: {} for name in FLOW_ALONE} | dict.fromkeys(FLOW_TOO, ON_FLOW)
REFUSED = {
    **dict.fromkeys(
        ("Amused", "VQDiffusion", "BlockRefinement", "EntropyBound", "DiscreteDDIM"),
        "samples tokens, which have no noise level between two others",
    ),
    **dict.fromkeys(
        ("CMStochasticIterative", "SCM", "FlowMapEulerDiscrete", "Piflow"),
        "samples a network that was already distilled to few steps",
    ),
    **dict.fromkeys(("DDIMInverse", "DPMSolverMultistepInverse"), "goes from samples to noise"),
    "RePaint": "fills in a given image",
    **dict.fromkeys(
        ("ConsistencyDecoder", "DDPMWuerstchen", "IPNDM", "KarrasVe", "MiniMaxH3", "RFD4Proteina", "ScoreSdeVe",
         "ScoreSdeVp"),
        "has none of the three kinds of noise levels that are known",
    ),
}  # fmt: skip
CONSTRUCTED: dict[str, Settings] = {  # what some cannot be made without
    "Amused": {"mask_token_id": 33},
    "VQDiffusion": {"num_vec_classes": 8},
    "RFD4Proteina": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0},
}
BY_DEFAULT = ("EulerDiscrete", "TCD", "FlowMatchLCM")  # the others run with -m wide


def class_of(name: str) -> Any:
    found = {kind.__name__: kind for kind in scheduler_classes()}
    if f"{name}Scheduler" not in found:
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}Scheduler")
    return found[f"{name}Scheduler"]


@functools.cache
def scheduler_classes() -> tuple[type, ...]:
    """Every scheduler class of the installed diffusers, exported or not."""
    names = [m.name for m in pkgutil.walk_packages(schedulers.__path__, f"{schedulers.__name__}.")]
    modules = [importlib.import_module(name) for name in names if "flax" not in name]
    held = {kind for module in modules for kind in vars(module).values() if inspect.isclass(kind)}
    return tuple(kind for kind in held if issubclass(kind, SchedulerMixin) and kind is not SchedulerMixin)


def taken(kind: type, settings: Settings) -> Settings:
    """Those of the settings that a class takes."""
    return {k: v for k, v in settings.items() if k in inspect.signature(kind.__init__).parameters}  # type: ignore[misc]


def scheduler(name: str, folder: Path, settings: Settings) -> Any:
    """A scheduler as diffusers reads it from a folder that holds these settings and no others."""
    kind = class_of(name)
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": kind.__name__, **settings}))
    return kind.from_pretrained(str(folder))


@functools.cache
def pipeline_of(family: str) -> Any:
    pipeline = zoo.load_all()[family].pipeline()
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


@pytest.fixture
def verified() -> Iterator[Callable[[str, Any], Reading]]:
    """The reading of a family's pipeline with another scheduler, held against its stock call to 1e-4."""
    before = {}

    def read(family: str, scheduler: Any) -> Reading:
        pipeline = pipeline_of(family)
        before.setdefault(family, pipeline.scheduler)
        pipeline.scheduler = scheduler
        reading = traced_reading.read(stock_call.drive(pipeline, zoo.FAMILIES[family].call))
        assert pipeline.scheduler is scheduler
        sigma_d = reading.schedule.sigma_data or 1.0
        net = Network(
            reading.stock.net, reading.schedule.clock(sigma_d), reading.schedule.prediction, sigma_d,
            call=reading.convention, rule=reading.rule,
        )  # fmt: skip
        teacher: Any = SimpleNamespace(reading=reading, name=family)
        found = verify(net.eval(), teacher)
        assert max(found.values()) < 1e-4, found
        assert {"plain velocity", "two samples velocity", "guided velocity"} <= found.keys()
        if reading.schedule.kind == "vp":
            assert {"x_0 of the stock scheduler", "first stock step"} <= found.keys()
        if reading.schedule.kind == "flow":
            assert {"time map", "first stock step"} <= found.keys()
        return reading

    yield read
    for family, scheduler in before.items():
        pipeline_of(family).scheduler = scheduler


def cases(names: Any) -> list[Any]:
    return [pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.wide) for n in names]


def test_every_scheduler_of_diffusers_is_read_or_refused_here() -> None:
    known = {f"{name}Scheduler" for name in (*DISCRETE, *EDM, *FLOW, *REFUSED)}
    assert {kind.__name__ for kind in scheduler_classes()} - known == set()


def test_what_ddim_calls_compatible_is_read() -> None:
    compatible: Any = DDIMScheduler().compatibles
    assert {kind.__name__ for kind in compatible} <= {f"{name}Scheduler" for name in (*DISCRETE, *EDM)}


@pytest.mark.parametrize("sampler", cases(DISCRETE))
def test_a_network_of_epsilon(sampler: str, verified: Any, tmp_path: Path) -> None:
    schedule = verified("sd15", scheduler(sampler, tmp_path, {} if sampler == "UnCLIP" else SD)).schedule
    assert (schedule.kind, schedule.prediction) == ("vp", "epsilon")
    if not sampler.startswith(("CogVideoX", "UnCLIP")):  # these have noise levels of their own
        right = DDIMScheduler(**SD).alphas_cumprod.double()
        assert torch.allclose(schedule.alphas_cumprod, right, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sampler", cases(n for n in DISCRETE if n != "UnCLIP"))
def test_a_network_of_v_that_ends_in_pure_noise(sampler: str, verified: Any, tmp_path: Path) -> None:
    settings = {**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    schedule = verified("sd21", scheduler(sampler, tmp_path, settings)).schedule
    assert (schedule.kind, schedule.prediction) == ("vp", "v_prediction")
    ends = "rescale_betas_zero_snr" in inspect.signature(class_of(sampler).__init__).parameters
    assert (float(schedule.alphas_cumprod[-1]) == 0) == ends


@pytest.mark.parametrize("sampler", cases(EDM[:2]))
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_network_of_edm(sampler: str, prediction: str, verified: Any, tmp_path: Path) -> None:
    schedule = verified("playground", scheduler(sampler, tmp_path, {"prediction_type": prediction})).schedule
    assert (schedule.kind, schedule.sign, schedule.sigma_data) == ("edm", 1.0 if prediction == "epsilon" else -1.0, 0.5)


@pytest.mark.parametrize("sampler", cases(FLOW))
def test_a_network_of_flow(sampler: str, verified: Any, tmp_path: Path) -> None:
    schedule = verified("sd3", scheduler(sampler, tmp_path, FLOW[sampler])).schedule
    assert (schedule.kind, schedule.prediction, schedule.note) == ("flow", "flow", "tau = 1000 s")


@pytest.mark.parametrize("sampler", REFUSED)
def test_what_is_no_teacher_is_refused_with_the_reason(sampler: str) -> None:
    kind = class_of(sampler)
    with pytest.raises(Unreadable, match=f"its {sampler}Scheduler {REFUSED[sampler]}"):
        kind_of(kind(**CONSTRUCTED.get(sampler, {})))


@pytest.mark.parametrize("sampler", ["DDIMInverse", *wide("DPMSolverMultistepInverse", "RePaint")])
def test_the_advice_for_a_sampler_of_another_purpose_works(sampler: str, verified: Any, tmp_path: Path) -> None:
    other = scheduler(sampler, tmp_path, SD)
    with pytest.raises(UserError) as caught:
        verified("sd15", other)
    assert "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)" in caught.value.fix
    verified("sd15", DDIMScheduler.from_config(other.config))


# What people set, and a class that takes it; on the SD betas.
SETTINGS: list[tuple[str, Settings]] = [
    ("DDIM", {"clip_sample": True, "thresholding": True}),
    ("PNDM", {"skip_prk_steps": False}),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverMultistep", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    ("DPMSolverMultistep", {"use_lu_lambdas": True, "solver_order": 3, "euler_at_final": True}),
    ("DPMSolverMultistep", {"variance_type": "learned_range", "thresholding": True}),
    ("DPMSolverSinglestep", {"use_exponential_sigmas": True, "lower_order_final": False}),
    ("DPMSolverSDE", {"use_karras_sigmas": True, "noise_sampler_seed": 0}),
    ("UniPCMultistep", {"use_beta_sigmas": True, "predict_x0": False, "timestep_spacing": "trailing"}),
    ("EulerDiscrete", {"timestep_spacing": "linspace", "interpolation_type": "log_linear", "use_karras_sigmas": True}),
    ("EulerDiscrete", {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}),
    ("HeunDiscrete", {"use_exponential_sigmas": True, "clip_sample": True}),
    ("DDPM", {"variance_type": "learned_range", "clip_sample": False, "steps_offset": 7}),
    ("DDPM", {"beta_schedule": "sigmoid", "prediction_type": "sample"}),
    ("DDIM", {"beta_schedule": "linear", "set_alpha_to_one": False, "steps_offset": 0}),
    ("DDIM", {"num_train_timesteps": 50, "trained_betas": torch.linspace(1e-3, 0.2, 50).tolist()}),
    ("DDIM", {"num_train_timesteps": 1001}),
    ("LCM", {"original_inference_steps": 4, "timestep_scaling": 1.0}),
    ("TCD", {"original_inference_steps": 8}),
    ("SASolver", {"algorithm_type": "data_prediction", "predictor_order": 1, "use_karras_sigmas": True}),
]


@pytest.mark.wide
@pytest.mark.parametrize(("sampler", "settings"), SETTINGS, ids=lambda v: v if isinstance(v, str) else ",".join(v))
def test_a_setting(sampler: str, settings: Settings, verified: Any, tmp_path: Path) -> None:
    given = scheduler(sampler, tmp_path, {**SD, **settings})
    schedule = verified("sd15", given).schedule
    assert schedule.prediction == settings.get("prediction_type", "epsilon")
    assert torch.equal(schedule.alphas_cumprod, given.alphas_cumprod.double())


FLOW_SETTINGS: list[Settings] = [
    {"shift": 7.0},
    {"stochastic_sampling": True, "use_karras_sigmas": True},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    {"use_dynamic_shifting": True, "shift_terminal": 0.1},
    {"shift_terminal": 0.02},
    {"invert_sigmas": True},
]


@pytest.mark.wide
@pytest.mark.parametrize("settings", FLOW_SETTINGS, ids=lambda v: ",".join(v))
def test_a_setting_of_a_flow(settings: Settings, verified: Any, tmp_path: Path) -> None:
    schedule = verified("sd3", scheduler("FlowMatchEulerDiscrete", tmp_path, settings)).schedule
    inverted = settings.get("invert_sigmas", False)
    assert (schedule.sign, schedule.note) == ((-1.0, "tau = -1000 s + 1000") if inverted else (1.0, "tau = 1000 s"))


PUBLISHED_ON = {
    "vp": {"epsilon": "sd15", "v_prediction": "sd21"},
    "flow": {"flow": "sd3"},
    "edm": {"edm": "playground"},
}


@pytest.mark.wide
@pytest.mark.parametrize(("sampler", "source", "settings"), PUBLISHED)
def test_a_published_configuration(
    sampler: str, source: str, settings: Settings, verified: Any, tmp_path: Path
) -> None:
    given = scheduler(sampler, tmp_path, settings)
    if sampler in REFUSED:
        with pytest.raises(Unreadable, match=REFUSED[sampler]):
            kind_of(given)
        return
    kind = kind_of(given)
    family = {"vp": "sd21" if settings.get("prediction_type") == "v_prediction" else "sd15", "flow": "sd3"}.get(kind)
    if family is None:
        family = "stable_audio" if sampler.startswith("Cosine") else "playground"
    assert verified(family, given).schedule.kind == kind, source


@pytest.mark.parametrize(
    "family", wide("pixart_sigma", "latte", "dit", "hunyuandit", "cogview3plus", "audioldm2", "ldm")
)
def test_a_sampler_that_clips(family: str, verified: Any) -> None:
    own = pipeline_of(family).scheduler
    clipping = DDIMScheduler(**{**taken(DDIMScheduler, own.config), "clip_sample": True})
    assert verified(family, clipping).schedule.kind == "vp"
