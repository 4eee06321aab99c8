"""What cannot be a teacher is refused by its cause, from class, signature and files, before weights are loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from teachers.pipeline_classes import DRIVEN, REFUSED

from scm_distill import builtin, teachers
from scm_distill.errors import UserError
from scm_distill.teachers import parts, pipeline_class

DIGITS = builtin.path("builtin:digits/teacher")
SD = "StableDiffusionPipeline"


def refused(repo: object, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        teachers.load(str(repo), **options)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))


def called(names: str) -> list[str]:
    """The full names of classes that the installed diffusers has."""
    full = (name if hasattr(diffusers, name) else f"{name}Pipeline" for name in names.split())
    return [name for name in full if hasattr(diffusers, name)]


def write(path: Path, content: object = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the packaged teacher."""
    return shutil.copytree(str(DIGITS), tmp_path / "digits")


def changed(folder: Path, file: str = "model_index.json", /, **changes: Any) -> Path:
    content = json.loads((folder / file).read_text())
    write(folder / file, {**content, **changes})
    return folder


@pytest.mark.parametrize("sentence", REFUSED)
def test_classes_that_see_more_than_a_prompt_or_make_no_samples(sentence: str, tmp_path: Path) -> None:
    names = called(REFUSED[sentence])
    assert names
    for name in names:
        write(tmp_path / "model_index.json", {"_class_name": name})
        assert f"{name} {sentence}" in refused(tmp_path).problem


def test_classes_driven_by_prompts_labels_or_noise_pass() -> None:
    names = called(DRIVEN)
    assert len(names) > 60
    lacking = [name for name in names if not issubclass(getattr(diffusers, name), DiffusionPipeline)]
    for name in names:
        if name in lacking:  # a package, such as sentencepiece
            with pytest.raises(UserError, match=f"^it: {name} needs [a-z]+") as caught:
                pipeline_class.check({"_class_name": name}, "it")
            assert caught.value.fix.startswith("pip install ")
        else:
            assert pipeline_class.check({"_class_name": name}, "it").__name__ == name


def test_a_setting_of_the_index_that_looks_like_a_part_is_none() -> None:
    index = {"_class_name": "StableDiffusionPAGPipeline", "pag_applied_layers": ["mid", "up"]}
    nothing = {name: [None, None] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    rest = {name: [None, None] for name in ("safety_checker", "feature_extractor")}
    kind = pipeline_class.check(index, "it")
    parts.check_entries({**index, **nothing, **rest}, kind, "it")
    parts.check({**index, **nothing, **rest}, kind, "org/name", "it")


@pytest.mark.parametrize(
    ("name", "problem", "fix"),
    [
        ("MyPipeline", "not diffusers' own", "diffusers alone"),
        (["pipeline", "MyPipeline"], "not diffusers' own, but pipeline.MyPipeline", "diffusers alone"),
        ("StableDifusionPipeline", "not diffusers' own", f"write {SD}"),
        ("UNet2DConditionModel", "no class of pipelines", "pipeline folder"),
        ("OnnxStableDiffusionPipeline", "runs in ONNX", "PyTorch"),
        ("FlaxStableDiffusionPipeline", "runs in Flax", "PyTorch"),
        ("FluxModularPipeline", "modular pipeline", "ordinary"),
        (None, "has None as _class_name", "save_pretrained"),
        (3, "has 3 as _class_name", "save_pretrained"),
        ("", "has '' as _class_name", SD),
    ],
)  # fmt: skip
def test_what_the_index_names_as_its_class(name: object, problem: str, fix: str, digits: Path) -> None:
    error = refused(changed(digits, _class_name=name))
    assert problem in error.problem
    assert fix in error.fix


def test_a_class_of_a_later_diffusers(digits: Path) -> None:
    error = refused(changed(digits, _class_name="ComingPipeline", _diffusers_version="9.1.0"))
    assert "the folder was written by 9.1.0" in error.problem
    assert error.fix == "pip install -U diffusers"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (["diffusers"], 'has ["diffusers"] as unet'),
        (["diffusers", None], 'has ["diffusers", null] as unet'),
        (["mine", "Net"], "not diffusers' own, mine.Net"),
        (["diffusers", "UNet2DModell"], "UNet2DModell, which the installed diffusers does not have"),
        (["transformers", "Nothing"], "Nothing, which the installed transformers does not have"),
        (["diffusers", "OnnxRuntimeModel"], "runs in ONNX"),
        (["diffusers", "FlaxUNet2DConditionModel"], "runs in Flax"),
        (["diffusers", "DDPMPipeline"], "is a pipeline"),
    ],
)  # fmt: skip
def test_parts_that_the_index_names(entry: object, problem: str, digits: Path) -> None:
    assert problem in refused(changed(digits, unet=entry)).problem


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda f: shutil.rmtree(f / "unet"), "the folder unet, which model_index.json names, is missing"),
        (lambda f: (f / "unet/config.json").unlink(), "its unet has no config.json"),
        (lambda f: (f / "unet/config.json").write_text("{"), "unet/config.json is no JSON"),
        (lambda f: (f / "model_index.json").write_text("{,"), "model_index.json is no JSON"),
        (lambda f: (f / "model_index.json").write_bytes("{}".encode("utf-16")), "model_index.json is no UTF-8 text"),
        (lambda f: (f / "model_index.json").write_bytes(b"\xef\xbb\xbf{}"), "model_index.json is no JSON: Unexpected"),
        (lambda f: (f / "model_index.json").write_text("[]"), "holds a list where a JSON object belongs"),
        (lambda f: [shutil.move(p, f / p.name) for d in ("unet", "scheduler") for p in (f / d).iterdir()]
         + [shutil.rmtree(f / d) for d in ("unet", "scheduler")], "its sub-folders were lost: "),
        (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "is a pointer of Git LFS"),
    ],
)  # fmt: skip
def test_files_that_are_missing_or_damaged(spoil: Callable[[Path], Any], problem: str, digits: Path) -> None:
    spoil(digits)
    assert problem in refused(digits).problem


@pytest.mark.parametrize("size", [0, -8, "word", [], [8], 1.5, True])
def test_sizes_of_samples_that_are_none(size: object, digits: Path) -> None:
    assert f"has {size!r} as sample_size" in refused(changed(digits, "unet/config.json", sample_size=size)).problem


def test_a_part_that_the_class_needs_and_the_index_does_not_name(digits: Path) -> None:
    error = refused(changed(digits, _class_name="LDMPipeline"))
    assert "names no vqvae, which LDMPipeline needs" in error.problem


@pytest.mark.parametrize(
    ("taken", "what"),
    [(9, "an image and a mask"), (13, "an image and a mask"), (8, "an input image"), (5, "an input image, or a map"),
     (7, "an input image, or a map")],
)  # fmt: skip
def test_networks_with_more_input_than_output_channels(taken: int, what: str, tmp_path: Path) -> None:
    empty = {name: [None, None] for name in ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor")}
    index = {
        "_class_name": SD,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    write(tmp_path / "model_index.json", {**empty, **index})
    write(tmp_path / "scheduler/scheduler_config.json", {})
    write(tmp_path / "unet/config.json", {"in_channels": taken})
    problem = refused(tmp_path).problem
    assert f"needs {what}" in problem
    assert f"its unet takes {taken} channels and gives 4" in problem


def test_an_inpainting_class_is_sent_to_its_text_to_image_class_only_with_as_many_channels(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionInpaintPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    write(tmp_path / "model_index.json", index)
    for taken, advised in ((4, True), (9, False)):
        write(tmp_path / "unet/config.json", {"in_channels": taken})
        error = refused(tmp_path)
        assert "needs an image and a mask" in error.problem
        assert (f"Distil the text-to-image class, {SD}" in error.fix) == advised
    write(
        tmp_path / "model_index.json",
        {"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": True},
    )
    assert "Distil" not in refused(tmp_path).fix  # the refiner of SDXL


UNET = {"_class_name": "UNet2DConditionModel"}
REV = "models--org--name/snapshots/abc"
NO_PIPELINES: dict[str, tuple[dict[str, object], str, str, str]] = {  # files, what is given, problem, fix
    "something else": ({"x/notes.txt": ""}, "x", "no model_index.json", "save_pretrained"),
    "unet alone": ({"unet/config.json": UNET}, "unet", "a unet (UNet2DConditionModel) alone", "the pipeline folder"),
    "unet of a pipeline": (
        {"p/model_index.json": {}, "p/unet/config.json": UNET},
        "p/unet",
        "a unet (UNet2DConditionModel) alone",
        "/p.",
    ),
    "controlnet": (
        {"c/config.json": {"_class_name": "ControlNetModel"}},
        "c",
        "a ControlNet (ControlNetModel) alone",
        "pipeline",
    ),
    "text encoder": (
        {"t/config.json": {"architectures": ["T5EncoderModel"]}},
        "t",
        "T5EncoderModel) alone",
        "pipeline",
    ),
    "config that is none": ({"t/config.json": "{"}, "t", "a part alone", "pipeline"),
    "scheduler alone": ({"s/scheduler_config.json": {}}, "s", "a scheduler alone", "pipeline"),
    "tokenizer alone": ({"s/tokenizer_config.json": {}}, "s", "a tokenizer alone", "pipeline"),
    "flat": ({"s/scheduler_config.json": {}, "s/config.json": UNET}, "s", "lie side by side", "with its folders"),
    "parts without index": (
        {"p/unet/config.json": UNET, "p/vae/config.json": {}},
        "p",
        "the parts unet, vae and no",
        "Download",
    ),
    "index one folder deeper": ({"p/in/model_index.json": {}}, "p", "no model_index.json", "p/in."),
    "index with a typo": ({"p/model_indx.json": {}}, "p", "its index is called model_indx.json", "Rename"),
    "index as text": ({"p/model_index.json.txt": "{}"}, "p", "its index is called model_index.json.txt", "Rename"),
    "LoRA": ({"l/pytorch_lora_weights.safetensors": ""}, "l", "a LoRA alone", "fuse_lora"),
    "adapter": ({"l/adapter_config.json": {}, "l/adapter_model.safetensors": ""}, "l", "a LoRA alone", "fuse_lora"),
    "checkpoint of accelerate": (
        {"c/optimizer.bin": "", "c/unet/config.json": UNET, "c/random_states_0.pkl": ""},
        "c",
        "checkpoint of a training",
        "save_pretrained",
    ),
    "single file inside": (
        {"f/model-v1.safetensors": ""},
        "f",
        "the single file model-v1.safetensors",
        "teacher.pipeline",
    ),
    "ckpt inside": ({"f/model.ckpt": ""}, "f", "model.ckpt", ".safetensors"),
    "modular": ({"m/modular_model_index.json": {}}, "m", "a modular pipeline", "ordinary"),
    "ONNX": ({"o/model.onnx": ""}, "o", "ONNX", "PyTorch"),
    "Flax": ({"o/flax_model.msgpack": ""}, "o", "Flax", "PyTorch"),
    "Hub cache folder": (
        {f"{REV}/model_index.json": {}, "models--org--name/refs/main": "abc"},
        "models--org--name",
        "a Hub cache folder",
        "name/snapshots/abc, or the Hub id org/name.",
    ),
    "snapshots": (
        {f"{REV}/model_index.json": {}},
        "models--org--name/snapshots",
        "a Hub cache folder",
        "snapshots/abc",
    ),
    "snapshot that was not finished": ({f"{REV}/x": ""}, "models--org--name", "a Hub cache folder", "snapshots/REV"),
    "Hub cache of all models": ({f"hub/{REV}/x": ""}, "hub", "the Hub cache of all models", "org/name"),
    "run": (
        {"r/config.yaml": "", "r/metrics.jsonl": "", "r/export/model_index.json": {}},
        "r",
        "a run of scm-distill",
        "teacher.repo",
    ),
    "ckpt": ({"a.ckpt": ""}, "a.ckpt", "a .ckpt file", "teacher.pipeline"),
    "gguf": ({"a.gguf": ""}, "a.gguf", "a .gguf file", "teacher.pipeline"),
    "bin of a part": ({"p/model_index.json": {}, "p/unet/a.bin": ""}, "p/unet/a.bin", "a file of one part", "/p."),
    "ckpt that is not there": ({}, "a.ckpt", "There is no file", "teacher.repo"),
    "the index itself": ({"p/model_index.json": {}}, "p/model_index.json", "is a file", "/p."),
    "weights of a part": (
        {"p/model_index.json": {}, "p/unet/config.json": UNET, "p/unet/a.safetensors": ""},
        "p/unet/a.safetensors",
        "a file of one part",
        "/p.",
    ),
    "cut single file": ({"a.safetensors": "cut"}, "a.safetensors", "no complete safetensors file", "again"),
}


@pytest.mark.parametrize("kind", NO_PIPELINES)
def test_what_is_given_instead_of_a_pipeline_folder(kind: str, tmp_path: Path) -> None:
    contents, given, problem, fix = NO_PIPELINES[kind]
    for name, content in contents.items():
        write(tmp_path / name, content)
    error = refused(tmp_path / given)
    assert problem in error.problem
    assert fix in error.fix


def test_an_address_of_the_hub() -> None:
    assert refused("https://huggingface.co/org/name/tree/main").fix == "Give org/name."


def test_a_lora_as_single_file(tmp_path: Path) -> None:
    save_file({f"unet.q.lora_{x}.weight": torch.ones(1) for x in ("A", "B")}, tmp_path / "style.safetensors")
    error = refused(tmp_path / "style.safetensors", pipeline=SD)
    assert "is a LoRA alone" in error.problem
    assert "fuse_lora" in error.fix


def test_the_class_of_a_single_file(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    error = refused(tmp_path / "a.safetensors", pipeline="StableDiffusionImg2ImgPipeline")
    assert "needs an input image" in error.problem
    assert error.fix.startswith(f"Distil the text-to-image class, {SD}, and load")
