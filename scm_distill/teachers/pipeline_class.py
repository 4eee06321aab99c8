"""What the class of a pipeline tells before anything is loaded: whether it is stock, and whether it can be a teacher.

The class is the one that the index names, in the installed diffusers; its name, its constructor and the signature of
its call are all that is looked at.
"""

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers import DiffusionPipeline

from scm_distill.errors import UserError, one_line
from scm_distill.teachers.stock_call import DENOISERS

STOCK = "Give a pipeline of a class that diffusers has: its export must run in diffusers alone."
DRIVEN = "Give a pipeline that samples from prompts, class labels or noise alone."

IMAGE = re.compile(r"(?!ip_adapter|negative_ip)(?:\w+_)?image(?:s|_reference)?|conditioning_frames|depth_map")
CONTROL = re.compile(r"control_(?:image|mode|video)|controls|hint|conditioning_frames|adapter_image")
VIDEO = re.compile(r"(?:\w+_)?videos?")
MASK = re.compile(r"mask|mask_image|mask_video")
SOUND = re.compile(r"(?:src_|reference_)?audio")
FRAMES = re.compile(r"(?:reference_)?conditions|keyframes_latents")
SEEN = (IMAGE, CONTROL, VIDEO, MASK, SOUND, FRAMES)  # arguments of a call that hold what a camera or microphone gives

# Names of classes that exist for such an argument, whether or not their call can do without.
NAMED = re.compile(
    r"Img2Img|Image2Image|ImageToImage|Image(?:2|To)Video|Video(?:2|To)(?:Video|World)|(?<!T)I2[IV]|V2V|Inpaint|Fill"
    r"|Edit(?!ing)|InstructPix2Pix|Kontext|Control|(?<!Motion)Adapter|Upscale|Upsample|SuperResolution|SRPipeline|Refine"
    r"|Variation|AudioToAudio|Condition|InContext|HDR|VACE|Depth|Normals|VisualCloze|ZImageOmni|Layered|Redux|Animate(?!Diff)"
)
STAGE = re.compile(r"(?<=[a-z0-9])(Prior|Decoder|Decode)(?![a-z])")
TOKENS = {"mask_token_id", "num_vec_classes", "block_size"}  # settings of schedulers that sample discrete tokens
# Image-to-image and inpainting classes of the same networks as a text-to-image class: an export of that one loads.
FROM_TEXT = re.compile(r"(?:Img2Img|Inpaint)(?=Pipeline$)")
LOADS_EXPORTS = (
    "ChromaImg2ImgPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "QwenImageImg2ImgPipeline",
    "QwenImageInpaintPipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline",
)  # fmt: skip


def check(index: Mapping[str, Any], repo: str, *, single: bool = False, text: bool = True) -> type[DiffusionPipeline]:
    """The class that the `index` of the pipeline `repo` names. Raises UserError where it cannot be a teacher.

    `single`: it is a single file, whose class the user names. `text`: its denoiser may be a text-to-image class's too.
    """
    name = index.get("_class_name")
    if isinstance(name, list | tuple):
        raise UserError(f"{repo}: its class is not diffusers' own, but {'.'.join(map(str, name))}.", STOCK)
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{repo}: its model_index.json has {name!r} as _class_name, where the name of a pipeline class belongs.",
            "Set it to the class, such as StableDiffusionPipeline, or save the pipeline again with save_pretrained.",
        )
    _refuse_runtimes(name, repo)
    kind = _class(name, index, repo)
    parameters = {} if kind is None else inspect.signature(kind.__call__).parameters
    _refuse_stages(name, kind, repo)
    _refuse_inputs(name, parameters, repo, _instead(name, single=single) if text else DRIVEN)
    if "image" in inspect.signature(getattr(kind, "invert", lambda: None)).parameters:
        raise UserError(f"{repo}: {name} needs an input image, which it inverts into noise first.", DRIVEN)
    if kind is None:
        packages = list(getattr(getattr(diffusers, name), "_backends", []))
        absent = [package for package in packages if not _installed(package)] or packages
        raise UserError(f"{repo}: {name} needs {' and '.join(absent)}.", f"pip install {' '.join(absent)}")
    return kind


def _refuse_runtimes(name: str, repo: str) -> None:
    for word, runtime in (("Flax", "Flax"), ("Onnx", "ONNX"), ("ORT", "ONNX"), ("OV", "OpenVINO")):
        if name.startswith(word) or (word == "Onnx" and word in name):
            raise UserError(
                f"{repo}: {name} runs in {runtime}, not in PyTorch.", "Give the PyTorch pipeline of the same model."
            )
    if "Modular" in name:
        raise UserError(
            f"{repo}: {name} is a modular pipeline, whose blocks are no stock call.",
            "Give the folder or Hub id of the same model as an ordinary pipeline.",
        )


def _class(name: str, index: Mapping[str, Any], repo: str) -> type[DiffusionPipeline] | None:
    """The class called `name`; None for one whose packages are not installed. Raises UserError for any other."""
    try:
        kind: Any = getattr(diffusers, name, None)
    except Exception as error:  # whatever an import raises
        raise UserError(
            f"{repo}: {name} cannot be imported: {one_line(error)}.", "Install or update what the reason names."
        ) from error
    if isinstance(kind, type) and getattr(kind, "_backends", None) and not issubclass(kind, DiffusionPipeline):
        return None
    if isinstance(kind, type) and issubclass(kind, DiffusionPipeline) and kind is not DiffusionPipeline:
        return kind
    if kind is not None:
        raise UserError(
            f"{repo}: its model_index.json names {name}, which is no class of pipelines.",
            "Give a pipeline folder: one part alone cannot be sampled from.",
        )
    written = str(index.get("_diffusers_version", ""))
    if _version(written) > _version(diffusers.__version__):
        raise UserError(
            f"{repo}: diffusers {diffusers.__version__} has no {name}; the folder was written by {written}.",
            "pip install -U diffusers",
        )
    pipelines = [known for known in dir(diffusers) if known.endswith("Pipeline")]
    near = difflib.get_close_matches(name, pipelines, 1, 0.94)
    raise UserError(
        f"{repo}: its class is not diffusers' own: diffusers {diffusers.__version__} has no {name}.",
        f"If it is misspelt, write {near[0]} in model_index.json." if near else STOCK,
    )


def _refuse_stages(name: str, kind: type[DiffusionPipeline] | None, repo: str) -> None:
    """Raises UserError for classes that make no samples from noise with one network."""
    if stage := STAGE.search(name):
        what = (
            "prior stage of a pipeline: it makes embeddings" if stage[1] == "Prior" else "decoder stage of a pipeline"
        )
        raise UserError(f"{repo}: {name} is the {what}.", "Give the pipeline that runs all stages in one call.")
    if kind is None:
        return
    parts = inspect.signature(kind).parameters
    scheduler: Any = parts["scheduler"].annotation if "scheduler" in parts else None
    if isinstance(scheduler, type) and TOKENS & set(inspect.signature(scheduler).parameters):
        raise UserError(
            f"{repo}: {name} samples discrete tokens ({scheduler.__name__}), and is no continuous diffusion.", DRIVEN
        )
    held = [part for part in parts if part not in ("self", "args", "kwargs")]
    if held and not set(DENOISERS) & set(held):
        raise UserError(
            f"{repo}: {name} has no denoiser called {' or '.join(DENOISERS[:2])} ({', '.join(held[:6])}).", DRIVEN
        )


def _refuse_inputs(name: str, parameters: Mapping[str, Any], repo: str, fix: str) -> None:
    """Raises UserError where the call needs an image, a video or a sound, or the class exists for one."""
    seen = [p for p in parameters if any(kind.fullmatch(p) for kind in SEEN)]
    needed = [p for p in seen if parameters[p].default is inspect.Parameter.empty]
    named = NAMED.search(name) is not None
    if needed or (named and (seen or set(parameters) <= {"self", "args", "kwargs"})):
        raise UserError(f"{repo}: {name} needs {_what(name, needed or seen)}.", fix)


def _what(name: str, arguments: list[str]) -> str:
    """What a call with these arguments is to be given, in words."""

    def any_of(kind: re.Pattern[str]) -> bool:
        return any(kind.fullmatch(argument) for argument in arguments)

    video, image = any_of(VIDEO), any_of(IMAGE)
    if any_of(MASK) or "Inpaint" in name:
        return f"{'a sound' if any_of(SOUND) else 'a video' if video and not image else 'an image'} and a mask"
    if any_of(CONTROL) or re.search("Control|Adapter", name):
        return "a control image"
    if any_of(SOUND):
        return "an input sound"
    if any_of(FRAMES) and not video and not image:
        return "images or a video to start from"
    if video and image:
        return "an input image or video"
    return "an input video" if video else "an input image"


def _instead(name: str, *, single: bool) -> str:
    """What to give instead of a pipeline of the class `name`."""
    text = FROM_TEXT.sub("", name)
    if name not in LOADS_EXPORTS:
        return DRIVEN
    return (
        f"Distil the text-to-image class, {text}"
        + ("" if single else " (its from_pretrained reads this folder, and its save_pretrained writes the teacher)")
        + f", and load the export into {name}."
    )


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
