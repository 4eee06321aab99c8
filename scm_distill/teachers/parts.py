"""The parts that the index of a pipeline names: whether they are stock, there and readable, before they are loaded."""

import inspect
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open

from scm_distill.artifacts import files, tensor_files
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.layout import INDEX
from scm_distill.errors import UserError, one_line
from scm_distill.teachers.no_pipeline import LORA_FIX
from scm_distill.teachers.pipeline_class import STOCK
from scm_distill.teachers.stock_call import DENOISERS

CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
WHOLE = "Download the pipeline again, with all its folders, or save it again with save_pretrained."
POINTED = ("a pointer of Git LFS, not the weights", "Run `git lfs pull` there, or download it with `hf download`.")


def check_entries(index: Mapping[str, Any], kind: type[DiffusionPipeline], repo: str) -> None:
    """Raise UserError where the `index` of the pipeline `repo`, of the class `kind`, has no part where one belongs."""
    parameters = inspect.signature(kind).parameters
    for name, value in index.items():
        optional = name in kind._optional_components and value is not None
        if not optional and (name not in parameters or parameters[name].default is not inspect.Parameter.empty):
            continue
        if not (_is_part(value) and (value[0] is None) == (value[1] is None)):
            raise UserError(
                f"{repo}: its {INDEX} has {one_line(json.dumps(value), 60)} as {name}, where [library, class] belongs.",
                'Write for example ["diffusers", "UNet2DConditionModel"], or save the pipeline again.',
            )


def check(index: Mapping[str, Any], kind: type[DiffusionPipeline], folder: str, repo: str) -> None:
    """Raise UserError where a part of the pipeline `repo`, of the class `kind`, is missing or not diffusers' own.

    `folder` is where it lies, or a Hub id, whose files are not looked at.
    """
    place, parameters = Path(folder), inspect.signature(kind).parameters
    usual = {name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    empty, optional = inspect.Parameter.empty, kind._optional_components
    missing = [name for name, value in usual.items() if value is empty and name not in (*index, *optional)]
    if missing:
        raise UserError(f"{repo}: its {INDEX} names no {' and no '.join(missing)}, which {kind.__name__} needs.", WHOLE)
    settings = {name for name, value in usual.items() if value is not empty} - set(optional)  # never loaded as parts
    found = {n: v for n, v in index.items() if _is_part(v) and v[0] is not None and n[0] != "_" and n not in settings}
    if place.is_dir():
        _check_folders(found, place, repo)
    for name, (library, called) in found.items():
        part = _class_of(name, library, called, repo)
        if place.is_dir():
            _check_files(name, part, place / name, repo)


def _is_part(value: Any) -> bool:
    """Whether an entry of an index is a part, [library, class], both None where it is left away."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(v is None or isinstance(v, str) for v in value)


def _check_folders(parts: Mapping[str, Any], place: Path, repo: str) -> None:
    """Raises UserError where a folder of a part is missing."""
    missing = [name for name in parts if not (place / name).is_dir()]
    if not missing:
        return
    flat = [name for name in CONFIGS if (place / name).is_file()]
    if flat and len(missing) > 1:
        raise UserError(
            f"{repo}: its sub-folders were lost: {', '.join(missing)} are missing, and {', '.join(flat)} lie beside "
            f"{INDEX}.",
            "Download the pipeline again, with its folders.",
        )
    beside = "; a part that can be done without, such as a safety checker, is [null, null] there"
    raise UserError(
        f"{repo}: the folder{'s' * (len(missing) > 1)} {', '.join(missing)}, which {INDEX} names, "
        f"{'are' if len(missing) > 1 else 'is'} missing.",
        WHOLE[:-1] + beside * any(name in ("safety_checker", "feature_extractor") for name in missing) + ".",
    )


def _class_of(name: str, library: str, called: str, repo: str) -> Any:
    """The class of a part. Raises UserError where it is not of diffusers or transformers, or not installed."""
    if library.split(".")[0] not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, library):
        raise UserError(
            f"{repo}: its {name} is of a class that is not diffusers' own, {library}.{called}.",
            STOCK,
        )
    if called.startswith(("Onnx", "Flax", "TF")):
        runtime = {"O": "ONNX", "F": "Flax", "T": "TensorFlow"}[called[0]]
        raise UserError(
            f"{repo}: its {name}, {called}, runs in {runtime}, not in PyTorch.",
            "Give the PyTorch pipeline of the same model.",
        )
    try:
        kind: Any = simple_get_class_obj(library, called)
    except (AttributeError, ImportError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{repo}: its {name} is a {called}, which the installed {library.split('.')[0]} does not have.",
            f"If it is misspelt, mend it in {INDEX}; otherwise update diffusers and transformers, or the package that "
            f"is named here: {one_line(error, 120)}.",
        ) from error
    lacking = [package for package in getattr(kind, "_backends", ()) if find_spec(package) is None]
    if lacking:
        raise UserError(
            f"{repo}: its {name}, {called}, needs {' and '.join(lacking)}.", f"pip install {' '.join(lacking)}"
        )
    if isinstance(kind, type) and issubclass(kind, DiffusionPipeline):
        raise UserError(f"{repo}: its {name} is a pipeline, {called}.", "Name the class of the part in the index.")
    return kind


def _check_files(name: str, kind: Any, folder: Path, repo: str) -> None:
    """Raises UserError where the configuration of a part cannot be read, or its weights are no more than pointers."""
    try:
        found = [folder / config for config in CONFIGS if (folder / config).exists()]
        for path in found:
            files.read_json(path)
    except Damaged as error:
        raise UserError(f"{repo}: {error.problem}", WHOLE) from error
    own = getattr(kind, "config_name", None) if isinstance(kind, type) and issubclass(kind, ConfigMixin) else None
    if own and not (folder / own).is_file():
        raise UserError(f"{repo}: its {name} has no {own}.", WHOLE)
    for path in folder.glob("*.safetensors"):
        if tensor_files.is_pointer(path):
            raise UserError(f"{repo}: {path.name} of its {name} is {POINTED[0]}.", POINTED[1])


def check_sizes(folder: str, index: Mapping[str, Any], repo: str, revision: str | None) -> None:
    """Raise UserError where the sample_size of the denoiser in `folder`, a folder or a Hub id, is no size."""
    for name in DENOISERS:
        config = (_config_of(folder, name, revision) if _is_part(index.get(name)) else None) or {}
        size = config.get("sample_size")
        sizes = size if isinstance(size, list | tuple) and len(size) > 1 else [size]
        if size is not None and not all(_is_size(s) for s in sizes):
            raise UserError(
                f"{repo}: its {name}/config.json has {size!r} as sample_size, where a number above zero belongs, "
                "or a pair of them.",
                "Write the size that it was trained at, or download that file again.",
            )


def _is_size(value: Any) -> bool:
    """Whether a value is a number of pixels, or of samples of a sound; published files have 1024.0 too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and float(value).is_integer()


def given_beside(folder: str, index: Mapping[str, Any], revision: str | None = None) -> tuple[str, str] | None:
    """What the denoiser in `folder`, a folder or a Hub id, is given beside the noisy sample, and how that was seen.

    A network that takes more channels than it gives is given an image too; None for any other, and for a class whose
    own defaults are such, since its pipeline makes those channels itself.
    """
    for name in DENOISERS:
        entry = index.get(name)
        kind: Any = getattr(diffusers, str(entry[1]), None) if entry is not None and _is_part(entry) else None
        config = _config_of(folder, name, revision) if isinstance(kind, type) and issubclass(kind, ModelMixin) else None
        if config is None:
            continue
        usual = {key: p.default for key, p in inspect.signature(kind).parameters.items()}
        (taken, given), own = _channels({**usual, **config}), _channels(usual)
        if taken <= given or own[0] > own[1]:
            continue
        beside = taken - given
        if beside > given and kind is not diffusers.UNet2DModel:  # an image of as many channels, and a mask
            what = "an image and a mask"
        else:
            what = "an input image" if beside >= given else "an input image, or a map of one such as its depth"
        return what, f"its {name} takes {taken} channels and gives {given}"
    return None


def _config_of(folder: str, name: str, revision: str | None) -> Mapping[str, Any] | None:
    """The configuration of the part `name`; None where there is none, which is told when the part is loaded."""
    path = Path(folder) / name / "config.json"
    if not Path(folder).is_dir():
        try:
            path = Path(hf_hub_download(folder, f"{name}/config.json", revision=revision))
        except (OSError, HFValidationError):  # no network, or no such file
            return None
    return files.read_json(path) if path.is_file() else None


def _channels(config: Mapping[str, Any]) -> tuple[int, int]:
    """Channels that a network takes and gives by its configuration; (0, 0) where it does not say."""
    taken, given = config.get("in_channels"), config.get("out_channels")
    given = taken if given is None else given
    return (taken, given) if isinstance(taken, int) and isinstance(given, int) else (0, 0)


def not_whole(path: Path) -> tuple[str, str] | None:
    """What a single .safetensors file is, and what to give instead, where it is not the weights of a whole pipeline."""
    above = next((parent for parent in path.absolute().parents[:2] if (parent / INDEX).is_file()), None)
    if above is not None and (path.parent / "config.json").is_file():
        return "a file of one part", f"Give the pipeline folder {above}."
    if tensor_files.is_pointer(path):
        return POINTED
    try:
        with safe_open(path, "pt") as weights:
            keys = list(weights.keys())
    except (OSError, SafetensorError):
        return "no complete safetensors file", "Download it again."
    if (
        keys
        and all(re.search(r"lora[_.]|\.alpha$|dora_scale|diff_b?$|norm", key) for key in keys)
        and any("lora" in key for key in keys)
    ):
        return "a LoRA alone", LORA_FIX
    return None
