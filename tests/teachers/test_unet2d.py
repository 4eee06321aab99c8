"""Reading a teacher: equal to the stock scheduler's own step, and clear when it cannot be read."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TeacherMaker, tiny_net
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from scm_distill import teachers
from scm_distill.errors import UserError
from scm_distill.maths.clocks import DiscreteSchedule
from scm_distill.maths.schedules import native
from scm_distill.maths.trigflow import ddim_step
from scm_distill.models.network import Network


@pytest.mark.parametrize("sigma_d", [0.5, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_step_along_F_is_the_stock_ddim_step(prediction: str, sigma_d: float, make_teacher: TeacherMaker) -> None:
    teacher = teachers.load(str(make_teacher(prediction=prediction)))
    F = Network(teacher.net, DiscreteSchedule(teacher.alphas_cumprod, sigma_d), teacher.prediction, sigma_d)
    ddim = DDIMScheduler.from_config(teacher.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(50)
    x_nat = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for k, to in ((980, 960), (500, 480), (20, 0)):
        with torch.no_grad():
            expected = ddim.step(teacher.net(x_nat, k).sample, k, x_nat).prev_sample
            s, t = (F.clock.phi[i].repeat(2) for i in (k, to))
            x_t = x_nat / native("v_prediction", s, sigma_d).rho.float()[:, None, None, None]
            moved = ddim_step(x_t, F(x_t / sigma_d, s, {}), s, t, sigma_d).float()
        got = native("v_prediction", t, sigma_d).scale(moved)
        assert torch.allclose(got, expected, atol=1e-4), k


def test_facts_of_a_class_conditional_teacher(make_teacher: TeacherMaker) -> None:
    teacher = teachers.load(str(make_teacher(classes=3, channels=3)))
    assert (teacher.classes, teacher.sample_shape, teacher.source.hub_id) == (3, (3, 8, 8), None)
    assert teacher.name == Path(teacher.source.repo).name
    assert teacher.cond(torch.tensor([2]))["class_labels"].tolist() == [2]


def test_the_builtin_teacher_is_an_ordinary_pipeline() -> None:
    teacher = teachers.load("builtin:digits/teacher")
    assert (teacher.prediction, teacher.sample_shape, teacher.classes) == ("epsilon", (1, 8, 8), None)
    assert len(teacher.alphas_cumprod) == 1000


def refusal(repo: Path | str) -> UserError:
    with pytest.raises(UserError) as caught:
        teachers.load(str(repo))
    assert caught.value.code == 2
    return caught.value


def test_what_cannot_be_read_is_refused_by_name(make_teacher: TeacherMaker, tmp_path: Path) -> None:
    assert "fourier" in refusal(make_teacher(time_embedding_type="fourier")).problem
    assert "variance" in refusal(make_teacher(out_channels=2)).problem
    assert "neither grey nor RGB" in refusal(make_teacher(channels=2)).problem
    assert "class embedding" in refusal(make_teacher(class_embed_type="timestep")).problem
    flow = tmp_path / "flow"
    DDPMPipeline(tiny_net(), FlowMatchEulerDiscreteScheduler()).save_pretrained(str(flow))
    assert "no discrete variance-preserving scheduler" in refusal(flow).problem
    zero = tmp_path / "zero"
    DDPMPipeline(tiny_net(), DDPMScheduler(rescale_betas_zero_snr=True)).save_pretrained(str(zero))
    assert "zero-terminal" in refusal(zero).problem


def test_a_pixel_unet_among_other_parts_is_read_by_its_call(tmp_path: Path) -> None:
    from diffusers import LDMPipeline, VQModel

    vq = VQModel(block_out_channels=(8,), norm_num_groups=4, latent_channels=1, num_vq_embeddings=4)
    LDMPipeline(vqvae=vq, unet=tiny_net(), scheduler=DDIMScheduler()).save_pretrained(str(tmp_path))
    teacher = teachers.load(str(tmp_path))
    assert (teacher.pixels, teacher.sample_shape, teacher.prediction) == (False, (1, 8, 8), "epsilon")


def test_damaged_and_missing_folders(make_teacher: TeacherMaker, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(make_teacher(), broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "is cut off" in refusal(broken).problem
    weights.unlink()
    assert "holds no safetensors weights of its unet" in refusal(broken).problem
    assert "model_index.json" in refusal(tmp_path).problem
    assert "no pipeline folder" in refusal(tmp_path / "nothing").problem
    assert "builtin:digits/teacher" in refusal("builtin:cats").fix


def test_pickled_weights_are_loaded_only_on_request(make_teacher: TeacherMaker, tmp_path: Path) -> None:
    import shutil

    pickled = tmp_path / "pickled"
    shutil.copytree(make_teacher(), pickled)
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(tiny_net().state_dict(), pickled / "unet" / "diffusion_pytorch_model.bin")
    assert "teacher.allow_pickle" in refusal(pickled).fix
    assert teachers.load(str(pickled), allow_pickle=True).classes is None
    assert teachers.load("builtin:digits/teacher", allow_pickle=True).classes is None  # safetensors still will do


def test_the_licence_of_the_teachers_card_is_read(make_teacher: TeacherMaker) -> None:
    folder = make_teacher()
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n# A teacher\n")
    assert teachers.load(str(folder)).source.license == {"license": "other", "license_name": "mine"}
    config = json.loads((folder / "model_index.json").read_text())
    assert config["_class_name"] == "DDPMPipeline"


def test_a_sampler_of_another_purpose_is_refused_with_what_to_do(make_teacher: TeacherMaker) -> None:
    folder = make_teacher()
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "RePaintScheduler"]}))
    with pytest.raises(UserError) as caught:
        teachers.load(str(folder))
    assert "its RePaintScheduler fills in a given image" in caught.value.problem
    assert "DDIMScheduler.from_config(pipe.scheduler.config)" in caught.value.fix
