"""Teachers as they were published go the whole way, or are refused in a sentence; nothing ends in a traceback."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from typer.testing import CliRunner
from whole_way import SAME, another_interpreter, cli, goes_the_whole_way

import published
from published.build import build
from scm_distill import teachers
from scm_distill.cli.app import app

ALL = published.load_all()
FolderOf = Callable[[str], Path]

# Read and exported in the default run; the whole way in `wide`.
FEW = ("sd-1.5", "sd-2.1", "wan2.1-t2v-1.3b", "flux.1-dev")
WHOLE_WAY = (
    *FEW, "sdxl-base-1.0", "ddpm-cifar10", "ldm-text2im", "dit-xl-2-512", "pixart-sigma", "sd3-medium", "sana-600m",
    "cogvideox-2b", "ltx-video-0.9", "audioldm-s-full-v2", "stable-audio-open-1.0", "playground-2.5", "wan2.2-t2v-a14b",
)  # fmt: skip
GUIDANCE = {"DDPMPipeline": "{}"}
SIGMA_D = {"playground-2.5": 0.5}
CONDITIONS = {"DDPMPipeline": "none", "DiTPipeline": "labels"}
# Networks that sample in few steps already: taken, with a warning.
FEW_STEPS = ("flux.1-schnell", "sdxl-turbo-resaved", "z-image-turbo")
# Entered, not built: their pipelines read layers 9, 18 and 27 of a text encoder, which has two here.
DEEP = ("flux.2-klein-4b", "flux.2-klein-9b")
IMAGE, MASK, OWN = "needs an input image", "needs an image and a mask", "its class is not diffusers' own"
PARTS = "which model_index.json names, are missing"
REFUSED = {  # most of them before anything is loaded, by what the index and the denoiser's file say
    "easyanimate-5.1-7b-control": "needs a control image",
    "ldm-super-resolution": IMAGE,
    "qwen-image-edit": IMAGE,
    "sd-image-variations": IMAGE,
    "sd-x4-upscaler": IMAGE,
    "svd-xt": IMAGE,
    "wan2.1-i2v-14b": IMAGE,
    "cogvideox1.5-5b-i2v": IMAGE,
    "ltx-video-0.9.7": IMAGE,
    "sdxl-refiner-1.0": IMAGE,
    "sdxl-refiner-1.0-last": IMAGE,
    "instruct-pix2pix": IMAGE,
    "controlnet-background-generation": MASK,
    "cogvideox-fun-1.5-5b": f"{MASK}: its transformer takes 33 channels and gives 16",
    "sdxl-inpainting-0.1": MASK,
    "sd-1.5-inpainting": MASK,
    "sd-1.5-inpainting-2022": MASK,
    "geowizard": OWN,
    "interactdiffusion": OWN,
    "lgm-full": OWN,
    "lgm-full-0.25": OWN,
    "mvdiffusion-ip": OWN,
    "objectclear": OWN,
    "own-ct-inpainting": OWN,
    "own-sd2.1-upload": OWN,
    "stable-materials": OWN,
    "zero123plus": OWN,
    "meinamix-onnx": "runs in ONNX, not in PyTorch",
    "minimax-h3": "is a modular pipeline",
    "stable-cascade": "is the decoder stage of a pipeline",
    "stable-cascade-first": "is the decoder stage of a pipeline",
    "stable-cascade-prior": "is the prior stage of a pipeline",
    "lcm-dreamshaper-7-first": "is a latent consistency model",
    "own-images-index": "StableDiffusionPipeline has no scheduler and denoiser",
    "bria-3.2": PARTS,
    "ernie-image": PARTS,
    "flux.2-dev": PARTS,
    "hunyuanvideo": PARTS,
    "if-index": PARTS,
    "own-avatar-index": PARTS,
    "own-dreambooth-index": PARTS,
    "own-osteosarcoma-index": PARTS,
    "own-sd15-0.34-index": PARTS,
    "own-sdxl-embroidery-index": PARTS,
    "own-ti-index": PARTS,
    "sd3-medium-cn-index": PARTS,
    "sd3.5-large-flat": PARTS,
    "flux.1-schnell-resaved": "bitsandbytes",
    "own-no1": 'has ["StableDiffusionSafetyChecker"] as feature_extractor, where [library, class] belongs',
    "own-ddpm-cotraining": "needs an input image: its unet takes 3 channels and gives 1",
    "own-textovideo": "its denoiser takes a sample of (4, 2, 8, 8) where the scheduler has (4, 8, 8)",
}
OTHERS = [name for name in ALL if name not in {*WHOLE_WAY, *FEW_STEPS, *DEEP, *REFUSED}]

started = pytest.fixture(scope="module", name="stock")(another_interpreter)
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """Builds the folder of an entry, by its name, once."""

    @functools.cache
    def folder(name: str) -> Path:
        path = tmp_path_factory.mktemp("published") / "teacher"
        build(ALL[name].files, path)
        return path

    return folder


def is_read_and_exported(name: str, folder: Path, out: Path) -> None:
    """Read a teacher, write its untrained student, and take two steps of the stock call with that folder."""
    teacher = teachers.load(str(folder), call=ALL[name].call)
    family, reading = teacher.family, teacher.reading
    if reading is None:  # of pixels
        return
    denoiser = reading.stock.denoiser
    parts = {denoiser: family.exported(family.student(teacher.net)), **family.parts()}
    teacher.source.load(**parts).save_pretrained(str(out))
    pipeline: Any = DiffusionPipeline.from_pretrained(str(out))
    net, batches = getattr(pipeline, denoiser), []
    net.register_forward_pre_hook(
        lambda _, args, kwargs: batches.append(len(next(iter([*args, *kwargs.values()])))), with_kwargs=True
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline(**{**reading.stock.arguments(["a cat"], 2), **{"output_type": "latent"}})
    assert batches
    assert not family.carries_no_guidance or batches == [1] * len(batches)


@pytest.mark.parametrize("name", FEW)
def test_published_teachers_are_read_and_exported(name: str, folder_of: FolderOf, tmp_path: Path) -> None:
    is_read_and_exported(name, folder_of(name), tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("name", WHOLE_WAY)
def test_published_teachers_go_the_whole_way(
    name: str, folder_of: FolderOf, stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ALL[name]
    goes_the_whole_way(
        folder_of(name),
        CONDITIONS.get(entry.pipeline, "prompt"),
        entry.call,
        stock,
        monkeypatch,
        guidance=GUIDANCE.get(entry.pipeline, "{scale: 3.0}"),
        sigma_d=SIGMA_D.get(name, 1.0),
    )


@pytest.mark.wide
@pytest.mark.parametrize("name", OTHERS)
def test_what_publishers_and_people_made_of_them_is_too(name: str, folder_of: FolderOf, tmp_path: Path) -> None:
    is_read_and_exported(name, folder_of(name), tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("name", FEW_STEPS)
def test_networks_of_few_steps_are_taken_with_a_warning(name: str, folder_of: FolderOf) -> None:
    call = json.dumps(ALL[name].call)
    facts = cli("inspect", folder_of(name), "-s", f"teacher.call={call}", "--no-export-check")
    assert facts["verdict"] == "can be distilled"
    assert "few-step" in facts["warning"]


@pytest.mark.parametrize(
    "name", [n if len(ALL[n].parts) == 1 else pytest.param(n, marks=pytest.mark.wide) for n in REFUSED]
)
def test_what_is_no_teacher_is_refused_in_a_sentence(name: str, folder_of: FolderOf) -> None:
    call = json.dumps(ALL[name].call)
    done = CliRunner().invoke(app, ["inspect", str(folder_of(name)), "-s", f"teacher.call={call}"])
    assert done.exit_code == 2
    assert REFUSED[name] in " ".join(done.stderr.split())


@pytest.mark.wide
def test_the_packaged_recipe_trains_on_a_published_teacher(folder_of: FolderOf, tmp_path: Path, stock: Any) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    settings = {
        "teacher.repo": folder_of("sd-1.5"), "teacher.call": "{height: 64, width: 64}",
        "data.prompts": tmp_path / "prompts.txt", "data.samples": 4, "adapt.prefit_steps": 2, "train.steps": 3,
        "train.batch_size": 2, "train.micro_batch_size": 2, "train.evaluate_samples": 2, "train.device": "cpu",
        "train.stop_if_worse": "false", "sampler.teacher_steps": 2, "export.samples": 2,
    }  # fmt: skip
    options = [option for name, value in settings.items() for option in ("-s", f"{name}={value}")]
    summary = cli("train", "sd15", *options, "-o", tmp_path / "run")
    assert summary["steps"] == 3
    assert summary["stock_difference"] < SAME
    call = {"prompt": ["a cat"], **summary["call"]}
    answer = stock(folder=summary["export"], denoiser="unet", call=call, out=str(tmp_path / "seen.safetensors"))
    assert answer["calls"] == 2


def test_a_key_that_a_published_file_lacks_is_not_in_its_twin(folder_of: FolderOf) -> None:
    for name in FEW:
        for path, content in ALL[name].files.items():
            assert json.loads((folder_of(name) / path).read_text()).keys() == content.keys(), (name, path)
