"""What a few families do differently."""

import importlib
import json
import pkgutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
import zoo
from diffusers import StableDiffusionPipeline
from teachers.conftest import TeacherOf
from torch import Tensor, nn

from scm_distill import teachers
from scm_distill.autodiff.forward_ad import jvp
from scm_distill.teachers import families, told_scale
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.families import Family, stable_diffusion, wan

pytestmark = pytest.mark.filterwarnings("ignore")

FILES = [module.name for module in pkgutil.iter_modules(families.__path__)]


def overrides(file: str) -> list[type[Family]]:
    """The families of one file."""
    members = vars(importlib.import_module(f"{families.__name__}.{file}")).values()
    return [m for m in members if isinstance(m, type) and issubclass(m, Family) and m is not Family]


@pytest.mark.parametrize("file", FILES)
def test_every_file_registers_pipelines_of_diffusers(file: str) -> None:
    kinds = overrides(file)
    assert kinds
    for kind in kinds:
        assert kind.pipelines
        assert [name for name in kind.pipelines if not hasattr(diffusers, name)] == []


def test_a_family_is_found_by_the_class_of_its_pipeline() -> None:
    for file in FILES:
        for kind in overrides(file):
            for name in kind.pipelines:
                assert type(families.of(type(name, (), {})())) is kind


def test_no_pipeline_is_of_two_families() -> None:
    names = [name for file in FILES for kind in overrides(file) for name in kind.pipelines]
    assert len(names) == len(set(names))


def test_a_pipeline_of_no_file_is_of_the_usual_family() -> None:
    assert type(families.of(SimpleNamespace())) is Family


def test_the_exported_parts_are_parts_and_settings_of_the_pipeline(teacher_of: TeacherOf) -> None:
    for name in ("wan22", "flux2_klein"):
        teacher = teacher_of(name)
        assert teacher.family.parts()
        assert teacher.family.parts().keys() <= teacher.reading.stock.pipeline.config.keys()


def mixed(teacher: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A batch with times on both sides of the boundary, and on it."""
    g = torch.Generator().manual_seed(0)
    cond = {"encoder_hidden_states": torch.randn(5, 16, 16, generator=g)}
    return torch.randn(5, *teacher.sample_shape, generator=g), torch.tensor([900.0, 874.9, 875.0, 10.0, 999.0]), cond


@torch.no_grad()
def test_wans_experts_each_get_the_samples_of_their_times(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("wan22")
    x, tau, cond = mixed(teacher)
    together = teacher.convention(teacher.net, x, tau, cond)
    pipeline = teacher.reading.stock.pipeline
    for i, expert in enumerate(["transformer", "transformer_2", "transformer", "transformer_2", "transformer"]):
        net, text = getattr(pipeline, expert), cond["encoder_hidden_states"][i : i + 1]
        alone = net(x[i : i + 1], tau[i : i + 1], encoder_hidden_states=text, return_dict=False)[0]
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5), i


@torch.no_grad()
def test_wans_experts_are_chosen_by_the_times_that_are_known_on_the_host(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("wan22")
    x, tau, cond = mixed(teacher)
    convention, high = (replace(teacher.convention, known=known) for known in (tau.double(), torch.full((5,), 999.0)))
    together = teacher.convention(teacher.net, x, tau, cond)
    assert torch.equal(convention(teacher.net, x, tau, cond), together)
    assert torch.equal(high(teacher.net, x, tau, cond), teacher.convention(teacher.net.high, x, tau, cond))
    guided = {name: value.repeat(2, 1, 1) for name, value in cond.items()}  # both predictions from one call
    twice = convention(teacher.net, x.repeat(2, 1, 1, 1, 1), tau.repeat(2), guided)
    assert torch.allclose(twice, together.repeat(2, 1, 1, 1, 1), atol=1e-5)


@torch.no_grad()
def test_wans_experts_differ(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("wan22")
    x, tau, cond = mixed(teacher)
    plain = Convention(**{f.name: getattr(teacher.convention, f.name) for f in fields(Convention)})
    high, low = (plain(net, x, tau, cond) for net in (teacher.net.high, teacher.net.low))
    assert (high - low).abs().amax((1, 2, 3, 4)).min() > 1e-2


def test_wans_boundary_is_that_of_the_stock_call(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("wan22")
    steps = teacher.reading.stock.watch(teacher.reading.stock.arguments(["a cat"], 12, scale=1.0), fake=True).steps
    assert {call.denoiser for step in steps for call in step.calls} == {"transformer", "transformer_2"}
    for step in steps:
        high = step.calls[0].denoiser == "transformer"
        assert high == (float(step.calls[0].arguments["timestep"][0]) >= teacher.net.boundary)


def test_wans_experts_carry_a_tangent(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("wan22")
    x, tau, cond = mixed(teacher)

    def tangent(rows: slice) -> Tensor:
        text = {"encoder_hidden_states": cond["encoder_hidden_states"][rows]}
        times = tau[rows]
        return jvp(lambda t: teacher.convention(teacher.net, x[rows], t, text), (times,), (torch.ones_like(times),))[1]

    together = tangent(slice(None))
    alone = torch.cat([tangent(slice(i, i + 1)) for i in range(5)])
    assert together.norm() > 0
    assert (together - alone).norm() < 1e-5 * alone.norm()


def test_wans_student_is_the_first_expert(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("wan22")
    assert teacher.family.student(teacher.net) is teacher.net.high
    assert teacher.reading.stock.pipeline.transformer is teacher.net.high
    one = teacher_of("wan")
    assert type(one.convention) is Convention
    assert one.family.student(one.net) is one.net
    assert not isinstance(one.net, wan.Experts)


@torch.no_grad()
def stock_output(net: nn.Module, teacher: Any, w: Tensor | None = None) -> Tensor:
    """Of three noises, as the stock pipeline calls its UNet; `w` as it embeds the scale."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 8, 8, generator=g)
    text, tau = torch.randn(3, 77, 16, generator=g), torch.tensor([1.0, 500.0, 999.0])
    if w is None:
        return teacher.convention(net, x, tau, {"encoder_hidden_states": text})
    pipeline = teacher.reading.stock.pipeline
    told = pipeline.get_guidance_scale_embedding(w - 1, embedding_dim=net.config.time_cond_proj_dim)
    return net(x, tau, encoder_hidden_states=text, timestep_cond=told, return_dict=False)[0]


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, 7.5, 15.0])
def test_stable_diffusions_new_input_changes_nothing(w: float, teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd15")
    wider = stable_diffusion.with_input(teacher.net)
    before = stock_output(teacher.net, teacher)
    assert torch.equal(stock_output(wider, teacher, torch.full((3,), w)), before)


def test_stable_diffusions_new_input_leaves_the_weights_alone(teacher_of: TeacherOf) -> None:
    net = teacher_of("sdxl").net
    wider = stable_diffusion.with_input(net)
    new = wider.state_dict().keys() - net.state_dict().keys()
    assert new == {"time_embedding.cond_proj.weight"}
    assert all(torch.equal(wider.state_dict()[name], value) for name, value in net.state_dict().items())
    assert net.config.time_cond_proj_dim is None
    assert stable_diffusion.with_input(wider) is wider


def without(file: Path, *keys: str) -> None:
    """Take keys out of a JSON file, as an older diffusers would have written it."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_stable_diffusions_input_is_made_where_the_folder_is_older_than_its_key(name: str, tmp_path: Path) -> None:
    net = zoo.load_all()[name].pipeline().unet
    net.save_pretrained(str(tmp_path))
    without(tmp_path / "config.json", "time_cond_proj_dim", "timestep_post_act", "conv_in_kernel")
    old = type(net).from_pretrained(str(tmp_path))
    wider = stable_diffusion.with_input(old)
    assert wider.config.time_cond_proj_dim == stable_diffusion.CHANNELS
    assert wider.state_dict().keys() - net.state_dict().keys() == {"time_embedding.cond_proj.weight"}


def test_an_index_that_is_older_than_a_part_of_its_class_is_exported_without_it(tmp_path: Path) -> None:
    family = zoo.load_all()["wan"]
    family.pipeline().save_pretrained(str(tmp_path / "teacher"))
    without(tmp_path / "teacher" / "model_index.json", "transformer_2", "boundary_ratio", "expand_timesteps")
    teacher = teachers.load(str(tmp_path / "teacher"), call=family.call)
    teacher.source.load(**teacher.family.parts()).save_pretrained(str(tmp_path / "export"))
    index = json.loads((tmp_path / "export" / "model_index.json").read_text())
    assert index["transformer_2"] == [None, None]
    assert index["boundary_ratio"] is None
    assert diffusers.DiffusionPipeline.from_pretrained(str(tmp_path / "export")).transformer_2 is None


@torch.no_grad()
def test_stable_diffusions_student_is_told_the_scale_as_the_stock_pipeline_tells_it(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd15")
    net, convention = teacher.family.guidance_input(teacher.net, teacher.convention)
    net.time_embedding.cond_proj.weight.normal_(generator=torch.Generator().manual_seed(1))
    g, w = torch.Generator().manual_seed(0), torch.tensor([1.0, 4.5, 12.0])
    x, text = torch.randn(3, 4, 8, 8, generator=g), torch.randn(3, 77, 16, generator=g)
    told = convention(net, x, torch.tensor([1.0, 500.0, 999.0]), {"encoder_hidden_states": text, "w": w})
    assert torch.equal(told, stock_output(net, teacher, w))
    assert not torch.allclose(told, stock_output(net, teacher, w + 1), atol=1e-2)
    assert teacher.convention.scale_of is None


def test_stable_diffusions_scale_is_embedded_as_by_the_pipeline() -> None:
    w = torch.tensor([1.0, 3.0, 7.5])
    expected = StableDiffusionPipeline.get_guidance_scale_embedding(None, w - 1, embedding_dim=256)
    assert torch.equal(told_scale.Embedding(256)(w), expected)


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_stable_diffusions_exported_unet_turns_guidance_off(name: str, fresh: TeacherOf) -> None:
    teacher = fresh(name)
    pipeline = teacher.reading.stock.pipeline
    seen: list[int] = []
    pipeline.unet = teacher.family.exported(teacher.net)
    pipeline.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    pipeline("a cat", num_inference_steps=1, guidance_scale=7.5, output_type="latent")
    assert seen == [1]


def test_a_denoiser_that_is_told_the_scale_needs_no_new_input(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("flux")
    assert teacher.family.guidance_input(teacher.net, teacher.convention) == (teacher.net, teacher.convention)
    assert teacher_of("zimage").family.guidance_input(teacher_of("zimage").net, teacher_of("zimage").convention) is None


def test_hunyuanimages_guiders_are_off(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("hunyuanimage")
    assert teacher.reading.stock.guided_by is None
    assert {name: part.config.enabled for name, part in teacher.parts().items()} == {"guider": False}
    assert "AdaptiveProjectedMixGuidance is no plain" in teacher.reading.no_guidance
