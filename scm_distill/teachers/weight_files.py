"""In which files the weights of a pipeline's parts lie, by the rules of diffusers and transformers.

A file is `STEM.safetensors` or, of a variant, `STEM.VARIANT.safetensors`; a sharded one has an index beside it. A part
without files of the variant that is asked for is read from its plain ones. Where none are, what lies there says why.
"""

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers
from torch import nn

from scm_distill.artifacts import tensor_files
from scm_distill.artifacts.files import Damaged
from scm_distill.errors import UserError

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".pb", ".gguf", ".flashpack")
SMALL = 1024  # bytes; a pointer of Git LFS has some 130
VARIANT = re.compile(r"\.([A-Za-z0-9_]+?)(-\d{5}-of-\d{5})?\.(safetensors|bin)$")


@dataclass(frozen=True)
class Part:
    """A network of a pipeline: its name in the index, its class, and its folder below the pipeline's ("": that one)."""

    name: str
    kind: Any
    folder: str

    @property
    def of_diffusers(self) -> bool:
        """Whether it is a model of diffusers; others are models of transformers."""
        return issubclass(self.kind, diffusers.ModelMixin)

    def file(self, names: Collection[str], variant: str | None, *, pickle: bool) -> str | None:
        """The file or index that is read, of `names` relative to the pipeline's folder; None where it is not there."""
        there = self.beside(names)
        is_variant = self.folder and variant and any(_second(name).startswith(variant) for name in there)
        dot = f".{variant}" if is_variant else ""
        stem = "diffusion_pytorch_model" if self.of_diffusers else "model"
        whole, index = f"{stem}{dot}.safetensors", f"{stem}.safetensors.index{dot}.json"
        order = [index, f"{stem}.safetensors{dot}.index.json", whole] if self.of_diffusers else [whole, index]
        if pickle:
            stem = stem if self.of_diffusers else "pytorch_model"
            order += [f"{stem}{dot}.bin"] if self.of_diffusers else [f"{stem}{dot}.bin", f"{stem}.bin.index{dot}.json"]
        found = next((name for name in order if name in there), None)
        return found and f"{self.folder}/{found}".lstrip("/")

    def beside(self, names: Collection[str]) -> set[str]:
        """The names of the files in the part's folder, of `names` relative to the pipeline's."""
        return {name.rpartition("/")[2] for name in names if name.rpartition("/")[0] == self.folder}


def _second(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def parts_of(index: Mapping[str, object], names: Collection[str]) -> list[Part]:
    """The networks that a model_index.json names, of classes that are installed; `names` are the pipeline's files."""
    folders, parts = {name.rpartition("/")[0] for name in names}, []
    for name, entry in index.items():
        if not isinstance(entry, list | tuple) or len(entry) != 2 or not all(isinstance(x, str) for x in entry):
            continue
        kind = _class(*entry)
        if kind is not None and issubclass(kind, diffusers.ModelMixin | transformers.PreTrainedModel):
            parts.append(Part(name, kind, name if name in folders else ""))
    return parts


def _class(library: str, name: str) -> type[nn.Module] | None:
    """A class of diffusers, of one of its pipelines, or of transformers; None for any other."""
    try:
        own = library in ("diffusers", "transformers")
        module = importlib.import_module(library) if own else getattr(diffusers.pipelines, library)
        kind = getattr(module, name)
    except Exception:  # not there, or a package that it needs is not: loading says so
        return None
    return kind if isinstance(kind, type) and issubclass(kind, nn.Module) else None


def names_below(folder: Path) -> set[str]:
    """The files of a pipeline's folder and of the folders in it, relative to it, with / between."""
    inner = [path for path in folder.iterdir() if path.is_dir()]
    return {path.relative_to(folder).as_posix() for one in (folder, *inner) for path in one.iterdir() if path.is_file()}


def choose(
    parts: Sequence[Part], names: Collection[str], repo: str, *, variant: str | None, pickle: bool
) -> dict[str, str]:
    """The file of weights, or its index, of each part by name. Raises UserError where a part has none to be read."""
    chosen = {part.name: part.file(names, variant, pickle=pickle) for part in parts}
    found = {name: file for name, file in chosen.items() if file is not None}
    if variant and not any(variant in (_second(name.rpartition("/")[2]).partition("-")[0]) for name in names):
        others = sorted(variants(names))
        raise UserError(
            f"{repo} holds no weights of teacher.variant={variant}.",
            f"Those that it holds: {', '.join(others)}." if others else "Leave teacher.variant away.",
        )
    if absent := [part for part in parts if part.name not in found]:
        raise _nothing(absent, parts, names, repo, variant, pickle=pickle)
    return found


def variants(names: Collection[str]) -> set[str]:
    """The variants of which there are files of weights."""
    found = (VARIANT.search(name.rpartition("/")[2]) for name in names)
    return {match[1] for match in found if match}


def _nothing(
    absent: Sequence[Part],
    parts: Sequence[Part],
    names: Collection[str],
    repo: str,
    variant: str | None,
    *,
    pickle: bool,
) -> UserError:
    """Why there is no file to be read for the parts `absent`, and the settings with which there is one, if any."""
    which = (
        f"{repo} holds no {'weights' if pickle else 'safetensors weights'}{f' of {variant}' * bool(variant)} of its "
    )
    which += f"{', '.join(part.name for part in absent)}"
    options = [(None, False), *((v, False) for v in sorted(variants(names))), (None, True)]
    options += [(v, True) for v in sorted(variants(names))]
    for other, unsafe in options:
        if (other, unsafe) != (variant, pickle) and all(part.file(names, other, pickle=unsafe) for part in parts):
            return UserError(*_advice(which, variant, other, unsafe=unsafe and not pickle))
    part = absent[0]
    there = sorted(name for name in part.beside(names) if name.endswith(WEIGHTS))
    where = f"{part.folder}/" if part.folder else "the folder"
    if any(name.startswith(("adapter_model.", "pytorch_lora_weights.")) for name in there):
        return lora_attached(part.name, repo, there[0])
    if not there:
        fix = f"Download {where} again, with its weights, or save the pipeline anew with save_pretrained."
        return UserError(f"{which}: {where} holds none at all.", fix)
    wanted = f"{'diffusion_pytorch_model' if part.of_diffusers else 'model'}.safetensors"
    fix = "Load the pipeline with diffusers as its author says, and save it with save_pretrained."
    if VARIANT.search(there[0]):
        fix = f"One variant is read for all parts: rename those of the {part.name} to {wanted} or what belongs to it."
    elif there[0].endswith(".safetensors"):
        fix = f"If that is the whole {part.name}, rename it to {wanted}."
    return UserError(f"{which}: {where} holds {', '.join(there[:4])}, and {wanted} is read.", fix)


def _advice(which: str, variant: str | None, other: str | None, *, unsafe: bool) -> tuple[str, str]:
    """What there is instead of `variant`, and the settings that read it."""
    held = [f"{other} files"] * (other != variant and other is not None) + [".bin files"] * unsafe
    held += ["plain ones"] * (variant is not None and other is None)
    settings = [f"teacher.variant={other or 'null'}"] * (other != variant) + ["teacher.allow_pickle=true"] * unsafe
    trust = "If you trust where it comes from, set" if unsafe else "Set"
    return f"{which}, but {' and '.join(held)}.", f"{trust} {' and '.join(settings)}."


def lora_attached(part: str, repo: str, key: str) -> UserError:
    """The refusal of a part that was saved while an adapter was attached to it; `key` shows it."""
    return UserError(
        f"The {part} of {repo} was saved with a LoRA attached to it ({key}), and does not load without it.",
        "Load the pipeline and the LoRA again as before, then pipe.fuse_lora() to keep its effect, "
        "pipe.unload_lora_weights() in any case, and pipe.save_pretrained(FOLDER).",
    )


def check_endings(folder: Path, parts: Collection[str]) -> None:
    """Raises UserError where something in a part's folder has no ending: diffusers then finds no variant."""
    for part in parts:
        for path in (folder / part).iterdir() if (folder / part).is_dir() else ():
            if "." not in path.name:
                raise UserError(f"diffusers reads no variant beside a name without ending: {path}.", "Move it away.")


def check_pointers(folder: Path, parts: Collection[str]) -> None:
    """Raises UserError where a file of the `parts` that holds no weights is a pointer of Git LFS."""
    for part in parts:
        for path in (folder / part).iterdir() if (folder / part).is_dir() else ():
            small = path.is_file() and path.stat().st_size < SMALL and not path.name.endswith(WEIGHTS)
            if small and tensor_files.is_pointer(path):
                raise Damaged(path, tensor_files.IS_POINTER, tensor_files.PULL)
