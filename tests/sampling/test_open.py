"""Samplers: a batch is its samples alone, which are the stock call's; what is counted; what is done without memory."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from conftest import TeacherMaker
from diffusers import DDIMScheduler, EDMDPMSolverMultistepScheduler, LCMScheduler

from scm_distill.errors import UserError
from scm_distill.export import schedulers
from scm_distill.export.schedulers import Grid
from scm_distill.progress import Silent
from scm_distill.sampling import open
from scm_distill.sampling.backends import PipelineBackend
from scm_distill.sampling.sampler import Sampler

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

CPU = torch.device("cpu")
SEEDS, PROMPTS = [4, 9, 2], ["a cat", "a dog", "a cat"]
BETAS: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FLOAT = {"wan": "np", "stable_audio": "pt", "audioldm2": "np"}  # output_type, where "np" is not it


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@functools.cache
def teacher(name: str) -> Any:
    return zoo.load_all()[name].pipeline()


@functools.cache
def student(name: str) -> Any:
    """The family with the scheduler that an export of it has."""
    pipe = zoo.load_all()[name].pipeline()
    old = pipe.scheduler
    if name == "stable_audio":  # its own is a stochastic one, on a Brownian tree
        return pipe
    if isinstance(old, EDMDPMSolverMultistepScheduler):
        pipe.scheduler = EDMDPMSolverMultistepScheduler.from_config(
            old.config, solver_order=1, algorithm_type="sde-dpmsolver++"
        )
    elif name in ("sd15", "audioldm2", "dit"):
        pipe.scheduler = schedulers.discrete(DDIMScheduler(**BETAS).alphas_cumprod, "epsilon", 4)
    else:
        pipe.scheduler = schedulers.flow(old, Grid(1.5, 1.1), 1.0, in_call=False)
    return pipe


def sampler(pipe: Any, name: str, size: int, made_for: int | None = 2, report: Any = None, **call: Any) -> Sampler:
    call = {**zoo.load_all()[name].call, "output_type": FLOAT.get(name, "np"), **call}
    return Sampler(PipelineBackend(pipe, call, made_for), CPU, size, report or Silent())


def apart(a: list[Any], b: list[Any]) -> float:
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in zip(a, b, strict=True))


STOCHASTIC = ("sd15", "sd3", "wan", "audioldm2", "stable_audio", "playground", "dit")


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_batch_is_its_samples_alone_which_are_the_stock_calls(name: str) -> None:
    pipe, conditions = student(name), [1, 2, 1] if name == "dit" else PROMPTS
    together, alone = sampler(pipe, name, 3), sampler(pipe, name, 1)
    drawn = together.draw(SEEDS, conditions)
    assert (together.size, together.reason) == (3, None)
    assert apart(drawn.samples, alone.draw(SEEDS, conditions).samples) < 1e-5
    assert apart(drawn.samples[1:], together.draw(SEEDS[1:], conditions[1:]).samples) < 1e-5
    key = "class_labels" if name == "dit" else "prompt"
    stock = [
        pipe(**{key: [c]}, **together.call, num_inference_steps=2, generator=torch.random.manual_seed(seed))[0][0]
        for seed, c in zip(SEEDS, conditions, strict=True)
    ]
    assert apart(drawn.samples, stock) < 1e-5
    assert apart(drawn.samples[:1], drawn.samples[2:]) > 1e-2  # another seed
    assert not together.deterministic


def test_a_list_of_generators_is_not_enough_for_a_flow_student() -> None:
    """Its second noise comes from the global generator: that is what PerSample is for."""
    pipe = student("sd3")
    alone = sampler(pipe, "sd3", 1).draw(SEEDS, PROMPTS)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    call = {**zoo.load_all()["sd3"].call, "output_type": "np", "num_inference_steps": 2}
    assert apart(alone.samples, list(pipe(prompt=PROMPTS, **call, generator=generators)[0])) > 1e-2


def test_prompts_whose_padding_is_seen_are_drawn_one_by_one() -> None:
    pipe, prompts, heard = teacher("cogview4"), ["a cat", "zebras in the long grass of a far land"], Heard()
    equal = sampler(pipe, "cogview4", 2, None)
    equal.draw([0, 1], ["a cat", "a dog"], 2)
    assert (equal.size, equal.reason) == (2, None)
    unequal = sampler(pipe, "cogview4", 2, None, heard)
    drawn = unequal.draw([0, 1], prompts, 2)
    assert unequal.size == 1
    assert "in a batch differ" in str(unequal.reason)
    assert heard.said == [f"one by one: {unequal.reason}"]
    assert apart(drawn.samples, sampler(pipe, "cogview4", 1, None).draw([0, 1], prompts, 2).samples) == 0


def test_a_pipeline_that_takes_no_batch_is_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sampler(student("sd15"), "sd15", 1).draw(SEEDS, PROMPTS)
    many = sampler(student("sd15"), "sd15", 3)
    monkeypatch.setattr(many.backend, "draw_batch", lambda *_: 1 / 0)
    drawn = many.draw(SEEDS, PROMPTS)
    assert many.reason == "its stock call takes no batch (ZeroDivisionError: division by zero)"
    assert apart(drawn.samples, alone.samples) == 0


@pytest.mark.parametrize(
    ("name", "steps", "call", "nfe"),
    [
        ("sd15", 3, {}, 6),  # guided: both halves
        ("sd15", 3, {"guidance_scale": 1.0}, 3),
        ("wan22", 4, {}, 8),  # guided by two calls, of two experts
        ("zimage", 2, {}, 4),  # a list of samples
        ("hunyuandit", 2, {}, 4),
    ],
)
def test_nfe_are_the_rows_that_the_denoisers_are_called_with(
    name: str, steps: int, call: dict[str, Any], nfe: int
) -> None:
    for size in (1, 2):
        drawn = sampler(teacher(name), name, size, None, **call).draw([1, 2], ["a cat", "a dog"], steps)
        assert drawn.nfe == nfe
        assert drawn.seconds > 0


def test_deterministic_is_what_draws_no_noise_after_the_start() -> None:
    assert sampler(teacher("sd15"), "sd15", 1, None).deterministic
    assert sampler(teacher("wan"), "wan", 1, None).deterministic
    assert not sampler(teacher("hunyuandit"), "hunyuandit", 1, None).deterministic  # ancestral DDPM
    assert not sampler(teacher("stable_audio"), "stable_audio", 1, None).deterministic


def limited(net: torch.nn.Module, rows: int, error: Exception) -> Any:
    def refuse(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args[0] if args else kwargs["hidden_states"]) > rows:
            raise error

    return net.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")],
)
def test_without_memory_the_batch_is_halved_until_it_fits_and_no_sample_changes(error: Exception) -> None:
    pipe, heard = student("sd15"), Heard()
    seeds, prompts = list(range(5)), ["a cat"] * 5
    alone = sampler(pipe, "sd15", 1, guidance_scale=1.0).draw(seeds, prompts)
    many = sampler(pipe, "sd15", 8, report=heard, guidance_scale=1.0)
    hook = limited(pipe.unet, 2, error)
    try:
        drawn = many.draw(seeds, prompts)
        assert many.size == 2
        assert heard.said == ["out of memory with 5 samples a call: 2 from here on"]
        assert apart(drawn.samples, alone.samples) < 1e-5
        hook.remove()
        hook = limited(pipe.unet, 0, error)
        with pytest.raises(UserError, match="One sample needs more memory"):
            many.draw(seeds, prompts)
    finally:
        hook.remove()


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.random.get_rng_state()
    for size in (1, 2):
        sampler(student("sd3"), "sd3", size).draw([1, 2], ["a cat", "a dog"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_known_of_a_teacher() -> None:
    wan, audio = (sampler(teacher(name), name, 1, None).facts for name in ("wan", "stable_audio"))
    assert (wan.driver, wan.modality, wan.scheduler, wan.fps) == ("prompt", "video", "UniPCMultistepScheduler", 16)
    assert (audio.modality, audio.default_steps, audio.rate) == ("audio", 100, 16)
    assert sampler(teacher("ltx"), "ltx", 1, None).facts.fps == 25
    dit = sampler(teacher("dit"), "dit", 1, None).facts
    assert (dit.driver, dit.classes, dit.default_steps) == ("labels", 1000, 50)


@pytest.mark.parametrize("classes", [None, 3])
def test_a_pixel_teacher_is_ddim_whatever_its_own_sampler(classes: int | None, make_teacher: TeacherMaker) -> None:
    from diffusers import DDIMPipeline, DDPMPipeline

    folder = make_teacher(classes=classes)
    opened = open.open_teacher(str(folder), {}, batch=3)
    assert opened.deterministic
    assert (opened.facts.scheduler, opened.facts.default_steps, opened.facts.classes) == ("DDIMScheduler", 50, classes)
    labels = [None] * 3 if classes is None else [2, 0, 1]
    drawn = opened.draw([5, 6, 7], labels)
    assert drawn.nfe == 50
    if classes is None:
        unet = DDPMPipeline.from_pretrained(folder).unet
        stock = DDIMPipeline(unet, DDIMScheduler.from_pretrained(folder, subfolder="scheduler"))
        stock.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
        theirs = stock(batch_size=3, num_inference_steps=50, generator=generators, output_type="np").images
        assert apart(drawn.samples, [np.round(image[..., 0] * 255) for image in theirs]) <= 1


def test_what_is_no_student_is_refused(make_teacher: TeacherMaker, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no few-step student"):
        open.open_student(str(make_teacher()))
    teacher("sd15").save_pretrained(str(tmp_path / "sd"))
    with pytest.raises(UserError, match=r"no few-step student: it has no scm_distill\.json"):
        open.open_student(str(tmp_path / "sd"))
    with pytest.raises(UserError, match="takes no 'height_of_it'"):
        open.open_teacher(str(tmp_path / "sd"), {"height_of_it": 8})


def test_half_precision_is_nearly_the_same(tmp_path: Path) -> None:
    teacher("sd15").save_pretrained(str(tmp_path))
    full, half = (
        open.open_teacher(str(tmp_path), {"output_type": "np"}, dtype=dtype).draw([1, 2], ["a cat", "a dog"], 4)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < apart(full.samples, half.samples) < 0.2


@pytest.mark.slow
def test_compiled_is_the_same_and_its_time_is_told(make_teacher: TeacherMaker) -> None:
    folder = str(make_teacher())
    plain = open.open_teacher(folder, {}).draw(range(3), [None] * 3, 2)
    fast = open.open_teacher(folder, {}, compile=True)
    drawn = fast.draw(range(3), [None] * 3, 2)
    assert apart(plain.samples, drawn.samples) <= 1  # of 255
    assert drawn.nfe == 2
    assert fast.compiled_in > drawn.seconds > 0


def test_the_zoos_student_scheduler_is_an_exports() -> None:
    assert isinstance(student("sd15").scheduler, LCMScheduler)
    assert student("sd3").scheduler.config.stochastic_sampling


@pytest.mark.parametrize(
    ("name", "guidance", "nfe"),
    [
        ("sd15", None, 4),  # as the stock call has it: both halves
        ("sd15", {"scale": 1.0, "negative": ""}, 2),
        ("sd15", {"scale": 3.0, "negative": "blurry"}, 4),
        ("qwenimage", {"scale": 4.0, "negative": ""}, 4),  # guided by true_cfg_scale, and only with a negative prompt
        ("flux", {"embedded": 3.5, "negative": ""}, 2),
    ],
)
def test_a_teacher_is_guided_as_it_is_told(name: str, guidance: dict[str, Any] | None, nfe: int) -> None:
    pipe = teacher(name)
    made = Sampler(PipelineBackend(pipe, zoo.load_all()[name].call, None, guidance), CPU, 1)
    assert made.draw([0], ["a cat"], 2).nfe == nfe
    assert made.guidance == (guidance or {})


def test_output_that_is_not_finite_is_refused_before_it_is_turned_into_pixels(make_teacher: TeacherMaker) -> None:
    made = open.open_teacher(str(make_teacher()), {})
    next(iter(made.backend.nets[0].parameters())).data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite in float32"):
        made.draw([0, 1], [None, None], 2)
