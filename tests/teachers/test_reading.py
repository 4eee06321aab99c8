"""The traced reading: what it learns of the families, and what it refuses in a sentence."""

import functools
import inspect
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from conftest import tiny_net
from diffusers import (
    AmusedPipeline,
    AmusedScheduler,
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DiffusionPipeline,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UVit2DModel,
    VQModel,
)
from teachers.conftest import FolderOf, TeacherOf
from torch import Tensor, nn
from zoo import parts

from scm_distill import teachers
from scm_distill.errors import UserError
from scm_distill.teachers import reading as traced_reading
from scm_distill.teachers import scheduler as schedules
from scm_distill.teachers import stock_call
from scm_distill.teachers.convention import Convention, Unclear, learn, learn_shared

pytestmark = pytest.mark.filterwarnings("ignore")

Forward = Callable[..., Any]
FLOW, EDM = ("flow", "flow"), ("edm", "edm")
# kind, prediction, sign, time map, rule, scale at which it is off, whether the unconditional half comes first
READ: dict[str, tuple[str, str, float, str, str | None, float, bool]] = {
    "sd15": ("vp", "epsilon", 1.0, "", "u + w (c - u)", 1.0, True),
    "sdxl": ("vp", "epsilon", 1.0, "", "u + w (c - u)", 1.0, True),
    "flux": (*FLOW, 1.0, "tau = 1 s", None, 1.0, True),
    "zimage": (*FLOW, -1.0, "tau = -1 s + 1", "c + w (c - u)", 0.0, False),
    "krea2": (*FLOW, 1.0, "tau = 1 s", "c + w (c - u)", 0.0, False),
    "lumina2": (*FLOW, -1.0, "tau = -1 s + 1", "u + w (c - u), renormalised to |c|", 1.0, False),
    "qwenimage": (*FLOW, 1.0, "tau = 1 s", "u + w (c - u), renormalised to |c|", 1.0, False),
    "mochi": (*FLOW, -1.0, "tau = -1000 s + 1000", "u + w (c - u)", 1.0, True),
    "cogview4": (*FLOW, 1.0, "tau = table of s", "u + w (c - u)", 1.0, False),
    "kandinsky5": (*FLOW, 1.0, "tau = 1000 s", "u + w (c - u)", 1.0, False),
    "animatediff": ("vp", "epsilon", 1.0, "", "u + w (c - u)", 1.0, True),
    "cogvideox": ("vp", "v_prediction", 1.0, "", "u + w (c - u)", 1.0, True),
    "latte": ("vp", "epsilon", 1.0, "", "u + w (c - u)", 1.0, True),
    "hidream": (*FLOW, -1.0, "tau = 1000 s", "u + w (c - u)", 1.0, True),
    "playground": (*EDM, 1.0, "tau = log of sigma", "u + w (c - u)", 1.0, True),
    "stable_audio": (*EDM, -1.0, "tau = arctan of sigma", "u + w (c - u)", 1.0, True),
}
# where the batch is in the arguments that hold it
BATCHED = {
    "sd15": {"encoder_hidden_states": 0},
    "sdxl": {"encoder_hidden_states": 0, "added_cond_kwargs.text_embeds": 0, "added_cond_kwargs.time_ids": 0},
    "flux": {"encoder_hidden_states": 0, "pooled_projections": 0},
    "zimage": {},
    "mochi": {"encoder_hidden_states": 0, "encoder_attention_mask": 0},
    "cogview4": {"encoder_hidden_states": 0, "original_size": 0, "target_size": 0, "crop_coords": 0},
    "kandinsky5": {"encoder_hidden_states": 0, "pooled_projections": 0},
    "animatediff": {"encoder_hidden_states": 0},
    "latte": {"encoder_hidden_states": 0},
    "hidream": {"encoder_hidden_states_t5": 0, "encoder_hidden_states_llama3": 1, "pooled_embeds": 0},
    "stable_audio": {"encoder_hidden_states": 0, "global_hidden_states": 0},
}


@pytest.mark.parametrize("name", READ)
def test_what_its_stock_call_shows_of_schedule_and_guidance(name: str, teacher_of: TeacherOf) -> None:
    teacher = teacher_of(name)
    reading, sign = teacher.reading, teacher.convention.sign
    rule = None if teacher.rule is None else str(teacher.rule)
    schedule = reading.schedule
    assert (
        schedule.kind, teacher.prediction, sign, schedule.note, rule, reading.off, reading.unconditional_first
    ) == READ[name]  # fmt: skip
    if teacher.rule is not None:
        assert reading.off == 1 - teacher.rule.offset


@pytest.mark.parametrize("name", BATCHED)
def test_where_the_batch_is(name: str, teacher_of: TeacherOf) -> None:
    assert teacher_of(name).convention.batched == BATCHED[name]


def test_what_is_no_plain_batch(teacher_of: TeacherOf) -> None:
    named = {name: teacher_of(name).convention for name in (*BATCHED, "qwenimage", "playground")}
    assert {name: c.listed for name, c in named.items() if c.listed} == {"zimage": {"x", "cap_feats"}}
    assert {name: c.shared for name, c in named.items() if c.shared} == {"kandinsky5": {"text_rope_pos"}}
    assert {name: c.repeated for name, c in named.items() if c.repeated} == {"qwenimage": {"img_shapes"}}
    assert {name: c.rows for name, c in named.items() if c.rows} == {"animatediff": {"encoder_hidden_states": 3}}
    assert {name: c.narrow for name, c in named.items() if c.narrow} == {"latte": (4, 3, 8, 8)}
    assert {name for name, c in named.items() if not c.batchable} == {"kandinsky5"}
    assert {name for name, c in named.items() if c.scale_of} == {"flux"}


def test_kandinsky_appends_five_channels_of_zeros(teacher_of: TeacherOf) -> None:
    convention = teacher_of("kandinsky5").convention
    dim, appended = convention.extra
    assert (dim, appended.shape, convention.sample_shape) == (4, (1, 2, 8, 8, 5), (2, 8, 8, 4))
    assert (appended == 0).all()


def test_flux_is_told_the_scale_as_it_is(teacher_of: TeacherOf) -> None:
    path, embed = teacher_of("flux").convention.scale_of
    assert (path, embed(torch.tensor([3.5])).tolist()) == ("guidance", [3.5])


def test_hunyuanvideo_is_told_the_scale_in_thousandths(teacher_of: TeacherOf) -> None:
    path, embed = teacher_of("hunyuanvideo").convention.scale_of
    assert (path, embed(torch.tensor([6.0])).tolist()) == ("guidance", [6000.0])


@pytest.mark.parametrize(
    ("name", "x", "time"),
    [("sd15", "sample", "timestep"), ("zimage", "x", "t"), ("hidream", "hidden_states", "timesteps")],
)
def test_the_arguments_that_take_sample_and_time(name: str, x: str, time: str, teacher_of: TeacherOf) -> None:
    convention = teacher_of(name).convention
    assert (convention.x, convention.time) == (x, time)


@pytest.mark.parametrize(("name", "modality"), [("sd15", "image"), ("latte", "video"), ("stable_audio", "audio")])
def test_the_modality_is_that_of_the_call(name: str, modality: str, teacher_of: TeacherOf) -> None:
    assert teacher_of(name).reading.modality == modality


def test_an_edm_schedule_fixes_sigma_d(teacher_of: TeacherOf) -> None:
    assert teacher_of("playground").reading.schedule.sigma_data == 0.5
    assert teacher_of("stable_audio").reading.schedule.sigma_data == 1.0
    assert teacher_of("sd15").reading.schedule.sigma_data is None


def test_reading_leaves_the_global_random_state_alone(fresh: TeacherOf) -> None:
    before = torch.random.get_rng_state()
    fresh("sd15")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_reading_leaves_the_pipeline_as_it_was(fresh: TeacherOf) -> None:
    pipeline = fresh("sd15").reading.stock.pipeline
    assert "forward" not in pipeline.unet.__dict__
    assert "step" not in pipeline.scheduler.__dict__


def refusal(act: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.code == 2
    return caught.value


def patched(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Forward], Forward], net: type[nn.Module] = UNet2DConditionModel
) -> None:
    """Plant a fault in every denoiser of this class."""
    monkeypatch.setattr(net, "forward", change(net.forward))


def index_of(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a pipeline folder whose model_index.json differs; None takes an entry away."""
    shutil.copytree(folder, to)
    index = {**json.loads((to / "model_index.json").read_text()), **changes}
    (to / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if v is not None}))
    return to


def test_a_denoiser_without_a_time_is_refused(fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(forward: Forward) -> Forward:
        def renamed(self: Any, sample: Tensor, when: Tensor, encoder_hidden_states: Tensor, **rest: Any) -> Any:
            return forward(self, sample, when, encoder_hidden_states, **rest)

        return renamed

    patched(monkeypatch, change)
    assert "takes no time called timestep, timesteps, t, but sample, when" in refusal(lambda: fresh("sd15")).problem


def test_a_scheduler_of_tokens_is_refused() -> None:
    net = UVit2DModel(
        hidden_size=16, cond_embed_dim=16, micro_cond_encode_dim=8, micro_cond_embed_dim=56, encoder_hidden_size=16,
        vocab_size=34, codebook_size=32, in_channels=16, block_out_channels=16, num_res_blocks=1, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, block_num_heads=2, sample_size=8,
    )  # fmt: skip
    pipeline = AmusedPipeline(
        vqvae=VQModel(block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=32), transformer=net.eval(),
        text_encoder=parts.clip(projection=True), tokenizer=parts.clip_tokenizer(),
        scheduler=AmusedScheduler(mask_token_id=33),
    )  # fmt: skip
    problem = refusal(lambda: traced_reading.read(stock_call.drive(pipeline, {}))).problem
    assert "its AmusedScheduler samples tokens" in problem


def test_a_swapped_in_scheduler_of_another_kind_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    scheduler = ["diffusers", "CMStochasticIterativeScheduler"]
    folder = index_of(folder_of("sd15"), tmp_path / "swapped", scheduler=scheduler)
    CMStochasticIterativeScheduler().save_pretrained(str(folder / "scheduler"))
    problem = refusal(lambda: teachers.load(str(folder))).problem
    assert "its CMStochasticIterativeScheduler samples a network that was already distilled" in problem


def test_epsilon_that_ends_in_pure_noise_is_refused() -> None:
    pipeline = zoo.FAMILIES["sd15"].pipeline()
    pipeline.scheduler = DDIMScheduler(rescale_betas_zero_snr=True)
    assert "zero-terminal-SNR" in refusal(lambda: traced_reading.read(stock_call.drive(pipeline, {}))).problem


def test_edm_times_of_another_map_are_refused() -> None:
    sigmas = torch.linspace(80, 0.002, 12).double()
    with pytest.raises(schedules.Unreadable, match="neither ln"):
        schedules.edm(EDMEulerScheduler(), (sigmas.log() / 4 * 1.01).tolist(), sigmas.tolist())
    assert schedules.edm(EDMEulerScheduler(), (sigmas.log() / 4).tolist(), sigmas.tolist()).note == "tau = log of sigma"


def test_batch_norm_in_the_denoiser_is_refused() -> None:
    pipeline = zoo.FAMILIES["sd15"].pipeline()
    pipeline.unet.mid_block.add_module("norm", nn.BatchNorm2d(4))
    assert "its denoiser has BatchNorm (mid_block.norm)" in refusal(lambda: stock_call.drive(pipeline, {})).problem


@pytest.mark.parametrize(
    ("name", "net", "decimals"), [("sd15", UNet2DConditionModel, 0), ("flux", FluxTransformer2DModel, 3)]
)
def test_a_denoiser_that_rounds_its_time_is_refused(
    name: str, net: type[nn.Module], decimals: int, fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(forward: Forward) -> Forward:
        @functools.wraps(forward)
        def rounded(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(forward).bind(*args, **kwargs)
            bound.arguments["timestep"] = bound.arguments["timestep"].float().round(decimals=decimals)
            return forward(*bound.args, **bound.kwargs)

        return rounded

    patched(monkeypatch, change, net)
    assert "rounds its time to integers, so it has no derivative" in refusal(lambda: fresh(name)).problem


def test_a_denoiser_that_looks_its_time_up_is_refused(fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch) -> None:
    table = nn.Embedding(1000, 1)

    def change(forward: Forward) -> Forward:
        @functools.wraps(forward)
        def looked_up(self: Any, sample: Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            table(torch.as_tensor(timestep))
            return forward(self, sample, timestep, *args, **kwargs)

        return looked_up

    patched(monkeypatch, change)
    assert "its denoiser takes no fractional time: " in refusal(lambda: fresh("sd15")).problem


def test_a_call_that_needs_an_image_is_refused() -> None:
    pipeline = StableVideoDiffusionPipeline(
        vae=None, image_encoder=None, unet=tiny_net(), scheduler=EulerDiscreteScheduler(), feature_extractor=None
    )
    assert "its call needs 'image'" in refusal(lambda: stock_call.drive(pipeline, {})).problem


def test_an_unknown_argument_of_the_call_is_refused_with_the_known_ones(fresh: TeacherOf) -> None:
    error = refusal(lambda: fresh("sd15", hight=16))
    assert error.problem == "The call of StableDiffusionPipeline takes no 'hight'."
    assert "height, width" in error.fix


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_a_scale_in_the_call_is_refused_by_its_name(name: str, fresh: TeacherOf) -> None:
    assert "guidance.scale" in str(refusal(lambda: fresh(name, guidance_scale=2.0)))


def test_a_number_of_steps_in_the_call_is_refused(fresh: TeacherOf) -> None:
    refusal(lambda: fresh("sd15", num_inference_steps=4))


@pytest.mark.parametrize("gone", [{"unet": None}, {"unet": [None, None]}, {"scheduler": None}])
def test_a_folder_without_its_parts_is_refused_before_weights_are_loaded(
    gone: Mapping[str, Any], folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = index_of(folder_of("sd15"), tmp_path / "less", **gone)
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    problem = refusal(lambda: teachers.load(str(folder))).problem
    assert "StableDiffusionPipeline has no scheduler and denoiser that are known" in problem
    assert "vae: AutoencoderKL" in problem


def test_what_is_done_to_the_output_on_its_way_is_refused() -> None:
    pipeline = zoo.FAMILIES["sd15"].pipeline()
    pipeline.unet.register_forward_hook(lambda _, __, output: (1.1 * output[0], *output[1:]))
    problem = refusal(lambda: traced_reading.read(stock_call.drive(pipeline, {}))).problem
    assert "what its scheduler is given is not its denoiser's output, nor the negative of it" in problem


def test_what_is_done_to_the_sample_on_its_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = zoo.FAMILIES["sd15"].pipeline()
    monkeypatch.setattr(DDIMScheduler, "scale_model_input", lambda _, sample, *__: sample.tanh())
    problem = refusal(lambda: traced_reading.read(stock_call.drive(pipeline, {}))).problem
    assert "its denoiser is not given a multiple of the scheduler's sample" in problem


def convention_of(one: dict[str, Any], two: dict[str, Any]) -> Convention:
    x, pair = {"x": torch.zeros(1, 4)}, {"x": torch.zeros(2, 4)}
    return learn({**x, **one}, {**pair, **two}, "x", "t", (4,))


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        (torch.zeros(2, 2), torch.zeros(4, 4), r"its argument a is \(2, 2\) for one sample and \(4, 4\) for two"),
        (torch.zeros(1, 3), torch.zeros(3, 3), r"its argument a is \(1, 3\) for one sample and \(3, 3\) for two"),
        (1, 2, "its argument a is 1 for one sample and 2 for two"),
        ([1, 2], [1, 2, 3], "its argument a has 2 entries for one sample and 3 for two"),
        (torch.zeros(1), None, "its argument a is "),
    ],
)
def test_an_argument_that_is_batched_in_no_known_way_is_refused(one: Any, two: Any, why: str) -> None:
    with pytest.raises(Unclear, match=why):
        convention_of({"a": one}, {"a": two})


def test_what_is_appended_to_the_sample_must_be_the_same_for_all() -> None:
    one, two = torch.zeros(1, 6), torch.zeros(2, 6)
    two[1, 5] = 1
    with pytest.raises(Unclear, match="differs between two equal samples"):
        learn({"x": one}, {"x": two}, "x", "t", (4,))


def test_an_argument_that_comes_and_goes_with_the_prompt_is_refused() -> None:
    convention = convention_of({"a": torch.zeros(3)}, {"a": torch.zeros(3)})
    with pytest.raises(Unclear, match="its argument a comes and goes with the prompt"):
        learn_shared(convention, {"a": torch.zeros(3)}, {"a": None})


def test_a_pipeline_inside_of_another_runs_under_the_same_scheduler() -> None:
    """As Kandinsky's combined pipelines, whose call is that of a pipeline which they hold."""
    outer = zoo.load_all()["sd15"].pipeline()
    outer.inner = StableDiffusionPipeline(**outer.components, requires_safety_checker=False)

    @functools.wraps(StableDiffusionPipeline.__call__)
    def call(self: Any, *positional: Any, **named: Any) -> Any:
        return self.inner(*positional, **named)

    outer.__class__ = type("Combined", (StableDiffusionPipeline,), {"__call__": call})
    outer.scheduler.register_to_config(clip_sample=True)  # so that another stands in for it
    before = outer.scheduler
    reading = traced_reading.read(stock_call.drive(outer, {}))
    assert reading.schedule.kind == "vp"
    assert reading.rule is not None
    assert reading.reference_steps[0].next_x_nat is not None  # a DDIM step, without clipping
    assert outer.scheduler is outer.inner.scheduler is before


def test_a_call_that_gives_nan_is_named() -> None:
    pipeline = zoo.load_all()["sd15"].pipeline()
    torch.nn.init.constant_(pipeline.unet.conv_out.bias, torch.nan)
    with pytest.raises(UserError, match="its denoiser gives NaN or infinity in the stock call itself"):
        traced_reading.read(stock_call.drive(pipeline, {}))
