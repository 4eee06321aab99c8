"""What the files of a teacher hold: every part is refused by its name and its first weight where it is not whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from conftest import TeacherMaker
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from scm_distill import inspect, plan_train, teachers, train
from scm_distill.errors import UserError
from scm_distill.progress import Silent
from scm_distill.sampling.open import open_teacher
from scm_distill.teachers import single_file, weight_files, weights
from scm_distill.teachers.zero_init import zero_at_first

Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]
OURS, THEIRS = "diffusion_pytorch_model", "model"
FILES = {"unet": OURS, "vae": OURS, "text_encoder": THEIRS}


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def sd(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a Stable Diffusion folder, to be spoilt."""
    return Path(shutil.copytree(folder_of("sd15"), tmp_path / "sd"))


def file_of(folder: Path, part: str) -> Path:
    return folder / part / f"{FILES.get(part, OURS)}.safetensors"


def edit(folder: Path, part: str, change: Edit) -> None:
    path = file_of(folder, part)
    save_file({name: x.contiguous() for name, x in change(load_file(path)).items()}, path, {"format": "pt"})


def check(folder: Path, variant: str | None = None, *, allow_pickle: bool = False) -> list[str]:
    """What is said of the files of a folder that are all right."""
    index, heard = json.loads((folder / "model_index.json").read_text()), Heard()
    weights.check_files(folder, index, "NAME", variant=variant, allow_pickle=allow_pickle, report=heard)
    return heard.lines


def refused(folder: Path, variant: str | None = None, *, allow_pickle: bool = False) -> UserError:
    with pytest.raises(UserError) as caught:
        check(folder, variant, allow_pickle=allow_pickle)
    return caught.value


def without(name: str) -> Edit:
    return lambda held: {key: x for key, x in held.items() if key != name}


def first_name(folder: Path, part: str) -> str:
    return sorted(load_file(file_of(folder, part)))[3]


def test_whole_folders_pass(sd: Path) -> None:
    assert check(sd) == []


@pytest.mark.parametrize("part", FILES)
def test_a_missing_weight(part: str, sd: Path) -> None:
    name = first_name(sd, part)
    edit(sd, part, without(name))
    assert refused(sd).problem == f"The {part} of NAME lacks {name}."


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "ema_model.module."])
def test_names_after_a_wrapper(prefix: str, part: str, sd: Path) -> None:
    edit(sd, part, lambda held: {prefix + name: x for name, x in held.items()})
    error = refused(sd)
    assert f"{part} of NAME" in error.problem
    assert f"begins with {prefix!r}" in error.problem
    assert prefix in error.fix


@pytest.mark.parametrize("part", FILES)
def test_a_wrong_shape(part: str, sd: Path) -> None:
    held = load_file(file_of(sd, part))
    name = next(name for name, x in sorted(held.items()) if x.ndim == 2)
    rows, columns = held[name].shape
    edit(sd, part, lambda held: {**held, name: torch.zeros(rows + 1, columns)})
    shapes = f"[{rows + 1}, {columns}] in its file and [{rows}, {columns}] by its config.json"
    assert refused(sd).problem == f"{name} of the {part} of NAME is {shapes}."


def test_weights_that_nothing_reads_are_named(sd: Path) -> None:
    edit(sd, "unet", lambda held: {**held, "ema.decay": torch.ones(3)})
    assert check(sd) == ["unet: 1 weight of its file is not read: ema.decay"]


def test_what_published_files_have_passes(sd: Path) -> None:
    """Position numbers of old CLIP files; old names of attention, which diffusers changes."""
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def older(name: str) -> str:
        for new, before in old.items():
            name = name.replace(new, before)
        return name

    edit(sd, "vae", lambda held: {older(name): x for name, x in held.items()})
    edit(sd, "text_encoder", lambda held: {**held, "embeddings.position_ids": torch.arange(77)[None]})
    assert any(".query." in name for name in load_file(file_of(sd, "vae")))
    assert check(sd) == []


def shard(folder: Path, part: str, *, dropped: str | None = None) -> list[Path]:
    """Two files and an index instead of one file; without the weight `dropped`, which the index names all the same."""
    path = file_of(folder, part)
    held, files = load_file(path), [path.with_name(f"{path.stem}-0000{i}-of-00002.safetensors") for i in (1, 2)]
    names = sorted(held)
    places = {name: files[i % 2].name for i, name in enumerate(names)}
    for i, file in enumerate(files):
        save_file({name: held[name] for name in names[i::2] if name != dropped}, file, {"format": "pt"})
    path.unlink()
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return files


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_shards(part: str, sd: Path) -> None:
    name = first_name(sd, part)
    files = shard(sd, part, dropped=name)
    assert refused(sd).problem == f"The {part} of NAME lacks {name}."
    files[1].unlink()
    assert f"{files[1]} is missing" in refused(sd).problem


def test_whole_shards_pass(sd: Path) -> None:
    shard(sd, "unet")
    shard(sd, "text_encoder")
    assert check(sd) == []


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("content", [b"", POINTER.encode(), b"no safetensors at all", None])
def test_files_that_are_not_there_completely(content: bytes | None, part: str, sd: Path) -> None:
    path = file_of(sd, part)
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    error = refused(sd)
    assert str(path) in error.problem
    assert ("git lfs pull" in error.fix) == (content == POINTER.encode())


def test_a_pointer_among_the_tokenizer_s_files(sd: Path) -> None:
    (sd / "tokenizer" / "tokenizer_config.json").write_text(POINTER)
    assert "git lfs pull" in refused(sd).fix


def rename(folder: Path, part: str, name: str) -> None:
    file_of(folder, part).rename(folder / part / name)


def to_variant(folder: Path, variant: str, *parts: str) -> None:
    for part in parts:
        rename(folder, part, f"{FILES[part]}.{variant}.safetensors")


@pytest.mark.parametrize("variant", ["fp16", "non_ema"])
@pytest.mark.parametrize("parts", [tuple(FILES), ("unet",)])
def test_a_variant_is_asked_for_by_name_and_read(variant: str, parts: tuple[str, ...], sd: Path) -> None:
    to_variant(sd, variant, *parts)
    error = refused(sd)
    assert ", ".join(sorted(parts)) in error.problem
    assert error.fix == f"Set teacher.variant={variant}."
    assert check(sd, variant) == []


def test_a_variant_that_is_not_there(sd: Path) -> None:
    assert refused(sd, "fp16").fix == "Leave teacher.variant away."
    to_variant(sd, "bf16", "vae")
    assert "bf16" in refused(sd, "fp16").fix


def test_two_variants_in_one_folder(sd: Path) -> None:
    to_variant(sd, "fp16", "unet")
    to_variant(sd, "bf16", "vae")
    assert "One variant" in refused(sd).fix


def test_a_name_without_ending_beside_a_variant(sd: Path) -> None:
    to_variant(sd, "fp16", "unet")
    (sd / "unet" / "LICENSE").write_text("free")
    assert "LICENSE" in refused(sd, "fp16").problem


def test_pickles_are_offered_only_where_they_lie(sd: Path) -> None:
    file_of(sd, "vae").unlink()
    assert "pickle" not in refused(sd).fix
    assert "vae/ holds none at all" in refused(sd).problem
    torch.save({}, sd / "vae" / f"{OURS}.bin")
    assert "set teacher.allow_pickle=true" in refused(sd).fix
    assert "The vae of NAME lacks" in refused(sd, allow_pickle=True).problem
    (sd / "vae" / f"{OURS}.bin").rename(sd / "vae" / f"{OURS}.fp16.bin")
    assert "set teacher.variant=fp16 and teacher.allow_pickle=true" in refused(sd).fix


def test_the_file_of_the_other_library(sd: Path) -> None:
    shutil.copy(file_of(sd, "unet"), sd / "unet" / "model.safetensors")
    assert check(sd) == []  # beside the right one
    file_of(sd, "unet").unlink()
    assert f"rename it to {OURS}.safetensors" in refused(sd).fix


@pytest.mark.parametrize("how", ["attached", "fused"])
def test_an_attached_lora_says_what_to_do_and_that_helps(how: str, sd: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    pipeline = DiffusionPipeline.from_pretrained(str(sd))
    settings = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    pipeline.unet.add_adapter(settings)
    layers = peft.utils.get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(str(tmp_path / "lora"), unet_lora_layers=layers)
    pipeline = DiffusionPipeline.from_pretrained(str(sd))
    before = pipeline.unet.state_dict()
    before = {name: x.clone() for name, x in before.items()}
    pipeline.load_lora_weights(str(tmp_path / "lora"))
    if how == "fused":
        pipeline.fuse_lora()
    pipeline.save_pretrained(str(tmp_path / "attached"))
    error = refused(tmp_path / "attached")
    assert "unet of NAME was saved with a LoRA" in error.problem
    assert "base_layer" in error.problem
    assert error.fix.index("pipe.fuse_lora()") < error.fix.index("pipe.unload_lora_weights()")
    pipeline.unload_lora_weights()  # as the sentence says
    pipeline.save_pretrained(str(tmp_path / "mended"))
    assert check(tmp_path / "mended") == []
    after = load_file(file_of(tmp_path / "mended", "unet"))
    changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert changed == ({name for name in before if name.endswith("to_q.weight")} if how == "fused" else set())


def test_an_adapter_in_place_of_an_encoder(sd: Path) -> None:
    """What transformers writes for an encoder with an adapter."""
    rename(sd, "text_encoder", "adapter_model.safetensors")
    assert "text_encoder of NAME was saved with a LoRA" in refused(sd).problem


def test_a_single_file_that_lacks_a_weight() -> None:
    def load() -> None:
        with torch.device("meta"):
            net = torch.nn.Linear(2, 3)
        net.to("cpu")

    with pytest.raises(NotImplementedError) as caught:
        load()
    found = single_file.incomplete(caught.value, "NAME")
    assert found is not None
    assert found.problem == "NAME lacks weight of its Linear."
    found = single_file.incomplete(KeyError("time_embed.0.weight"), "NAME")
    assert found is not None
    assert "NAME lacks time_embed.0.weight" in found.problem
    assert single_file.incomplete(ValueError("else"), "NAME") is None


def test_a_damaged_configuration_of_a_part(sd: Path) -> None:
    (sd / "unet" / "config.json").write_text("{")
    assert "is no JSON" in refused(sd).problem


def test_a_single_file_that_is_an_adapter(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    save_file({"unet.mid.to_q.lora_A.weight": torch.ones(2, 4), "unet.mid.to_q.lora_B.weight": torch.ones(4, 2)}, path)
    with pytest.raises(UserError, match="is a LoRA") as caught:
        teachers.load(str(path), pipeline="StableDiffusionPipeline")
    assert "fuse_lora" in caught.value.fix


def planted(value: float) -> Edit:
    def change(held: dict[str, Tensor]) -> dict[str, Tensor]:
        name = sorted(name for name, x in held.items() if x.ndim > 1)[2]
        held[name].view(-1)[-1] = value
        return held

    return change


def test_infinity(sd: Path) -> None:
    edit(sd, "vae", planted(float("-inf")))
    with pytest.raises(UserError, match=r"The vae of .* holds infinity in [\w.]+\.weight\."):
        teachers.load_pipeline(str(sd))


def recipe(folder: Path) -> dict[str, object]:
    teacher = {"repo": str(folder), "call": {"height": 16, "width": 16}}
    return {"teacher": teacher, "data": {"source": "teacher"}, "train": {"steps": 1, "batch_size": 1}}


COMMANDS: dict[str, Callable[[Path], object]] = {
    "inspect": lambda folder: inspect(folder),
    "dry run": lambda folder: plan_train(recipe(folder)),
    "train": lambda folder: train(recipe(folder), out=folder.parent / "run"),
    "sample": lambda folder: open_teacher(str(folder), {}, dtype=torch.bfloat16),
}


@pytest.mark.parametrize(
    ("command", "part"),
    [
        *(("inspect", part) for part in FILES),
        ("dry run", "vae"),
        ("train", "text_encoder"),
        ("sample", "unet"),
    ],
)
def test_every_command_refuses_a_planted_nan(part: str, command: str, sd: Path) -> None:
    edit(sd, part, planted(float("nan")))
    with pytest.raises(UserError, match=rf"The {part} of .* holds NaN in [\w.]+\.weight\."):
        COMMANDS[command](sd)
    assert not (sd.parent / "run").exists()


@pytest.mark.wide
def test_a_variant_through_inspect(sd: Path) -> None:
    """Its recipe has the setting; the export, which stock diffusers reads in the check, is written without one."""
    to_variant(sd, "fp16", "unet", "vae")
    found = inspect(sd, overrides={"teacher.variant": "fp16", "teacher.call.height": 16, "teacher.call.width": 16})
    assert found.verdict == "can be distilled"
    assert found.recipe["teacher"]["variant"] == "fp16"


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore")  # of the libraries, while they build a family
@pytest.mark.parametrize("family", sorted(zoo.load_all()))
def test_every_part_of_every_family(family: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of(family), tmp_path / family))
    assert check(folder) == []
    index, names = json.loads((folder / "model_index.json").read_text()), weight_files.names_below(folder)
    parts = weight_files.parts_of(index, names)
    assert parts
    for part in parts:
        path = folder / str(part.file(names, None, pickle=False))
        whole, held = path.read_bytes(), load_file(path)
        name = next(
            name for name, x in sorted(held.items(), reverse=True) if x.ndim > 1 and not name.endswith(".pe")
        )  # computed
        save_file({key: x for key, x in held.items() if key != name}, path, {"format": "pt"})
        assert refused(folder).problem.startswith(f"The {part.name} of NAME lacks ")
        save_file({f"module.{key}": x for key, x in held.items()}, path, {"format": "pt"})
        error = refused(folder).problem
        assert f"of the {part.name} of NAME are named after a wrapper" in error
        path.write_bytes(whole)


@pytest.mark.parametrize("fault", ["missing", "nan"])
def test_pixel_teachers(fault: str, make_teacher: TeacherMaker, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_teacher(), tmp_path / "pixels"))
    edit(folder, "unet", without("conv_out.weight") if fault == "missing" else planted(float("nan")))
    with pytest.raises(UserError, match=r"The unet of .* lacks conv_out.weight|The unet of .* holds NaN"):
        teachers.load(str(folder))


class Holds:
    """A pipeline of one part, for `check_values`."""

    def __init__(self, net: torch.nn.Module) -> None:
        self.components = {"part": net}


def values_refused(net: torch.nn.Module) -> str:
    with pytest.raises(UserError) as caught:
        weights.check_values(Holds(net), "NAME", Silent())
    return caught.value.problem


def test_zeros(sd: Path) -> None:
    unet = DiffusionPipeline.from_pretrained(str(sd)).unet
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if name.endswith("bias"):
                p.zero_()
        weights.check_values(Holds(unet), "NAME", Silent())  # biases may be
        unet.conv_out.weight.zero_()
        assert values_refused(unet) == "conv_out.weight of the part of NAME is all zeros."
        for p in unet.parameters():
            p.zero_()
        assert values_refused(unet).startswith("The part of NAME is all zeros, conv_in.weight")


def test_what_its_class_starts_at_zero_may_be_zero() -> None:
    from diffusers import ControlNetModel

    net = ControlNetModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=8,
        conditioning_embedding_out_channels=(4, 4),
    )
    zero = {name for name, p in net.named_parameters() if p.ndim > 1 and not p.any()}
    assert "controlnet_down_blocks.0.weight" in zero
    assert zero == {name for name in zero_at_first(net) if name.endswith("weight")}
    weights.check_values(Holds(net), "NAME", Silent())
    with torch.no_grad():
        net.conv_in.weight.zero_()
    assert values_refused(net) == "conv_in.weight of the part of NAME is all zeros."


def test_what_one_byte_numbers_hold() -> None:
    x = torch.ones(4, 5, dtype=torch.float8_e4m3fn)
    assert weights._extremes(x) == (1, 1)
    assert all(v != v for v in weights._extremes(torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)))


def test_a_long_look_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PATIENCE", -1.0)
    heard = Heard()
    weights.check_values(Holds(torch.nn.Linear(3, 4)), "NAME", heard)
    assert heard.lines == ["looking for NaN in the weights: 0.0 of 0.0 GiB"]


def test_names_of_a_hub_listing() -> None:
    names = {"unet/diffusion_pytorch_model.fp16.safetensors", "unet/config.json", "model_index.json"}
    parts = weight_files.parts_of({"unet": ["diffusers", "UNet2DModel"], "scheduler": [None, None]}, names)
    assert [part.name for part in parts] == ["unet"]
    with pytest.raises(UserError, match="but fp16 files") as caught:
        weight_files.choose(parts, names, "org/name", variant=None, pickle=False)
    assert caught.value.fix == "Set teacher.variant=fp16."
