"""What a folder without a model_index.json is instead of a pipeline folder, by the files in it."""

import difflib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from scm_distill.artifacts.layout import CHECKPOINTS, FACTS, INDEX, METRICS, RECIPE
from scm_distill.errors import UserError

PART = "config.json"  # of a network
LONE = {  # file: what it describes
    "scheduler_config.json": "a scheduler",
    "tokenizer_config.json": "a tokenizer",
    "preprocessor_config.json": "an image processor",
}
PARTS = ("unet", "transformer", "vae", "text_encoder", "scheduler", "tokenizer")
TRAINING = ("optimizer.bin", "random_states_0.pkl", "scaler.pt", "optimizer.pt", "trainer_state.json")
LORA = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin", "adapter_config.json")
LORA_FIX = "In its base pipeline: load_lora_weights, fuse_lora, unload_lora_weights, save_pretrained; give that folder."
WHOLE = "Give the folder that save_pretrained of a pipeline wrote, or a Hub id."


def no_pipeline(folder: Path, repo: str) -> UserError:
    """The error for the folder that the user calls `repo`: what it is, and what to give instead."""
    names = sorted(entry.name for entry in folder.iterdir()) if _readable(folder) else []
    for kind in KINDS:
        if found := kind(folder, names):
            what, fix = found
            return UserError(f"{repo} is no pipeline folder: {what}.", fix)
    return UserError(f"{repo} is no diffusers pipeline folder: it has no {INDEX}.", _deeper(folder) or WHOLE)


Found = tuple[str, str] | None


def _empty(folder: Path, names: list[str]) -> Found:
    if not _readable(folder):
        return "it may not be read", "Give yourself the right to read it."
    return ("it is empty", WHOLE) if not names else None


def _modular(_: Path, names: list[str]) -> Found:
    if "modular_model_index.json" not in names:
        return None
    return (
        "it is a modular pipeline (modular_model_index.json), whose blocks are no stock call",
        "Give the folder or Hub id of the same model as an ordinary pipeline, one with a model_index.json.",
    )


def _misspelt(folder: Path, names: list[str]) -> Found:
    near = difflib.get_close_matches(INDEX, [n for n in names if n.lower() not in LONE and n != PART], 1, 0.8)
    if not near or not (folder / near[0]).is_file():
        return None
    return f"its index is called {near[0]}", f"Rename {near[0]} to {INDEX}."


def _hub_cache(folder: Path, names: list[str]) -> Found:
    if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
        folder = folder.parent
    snapshots = folder / "snapshots"
    if snapshots.is_dir() and (folder.name.startswith("models--") or {"refs", "blobs"} & set(names)):
        revisions = [path.name for path in sorted(snapshots.iterdir()) if (path / INDEX).is_file()]
        main = folder / "refs" / "main"
        named = main.read_text().strip() if main.is_file() else ""
        revision = named if named in revisions else next(iter(revisions), None)
        name = "/".join(folder.name.split("--")[1:])
        use = f"Use {snapshots / revision}" if revision else f"Use {snapshots}/REV, of a revision that is complete"
        return "it is a Hub cache folder", f"{use}{f', or the Hub id {name}' if name else ''}."
    cached = next((name for name in names if name.startswith("models--")), None)
    if cached is None:
        return None
    name = "/".join(cached.split("--")[1:])
    return "it is the Hub cache of all models", f"Give one by its Hub id, such as {name}."


def _run(folder: Path, names: list[str]) -> Found:
    if RECIPE not in names or not {METRICS, CHECKPOINTS, "export"} & set(names):
        return ("it is a file of facts without its export", WHOLE) if FACTS in names else None
    return (
        "it is a run of scm-distill, whose result is a student",
        f"Give the teacher that it was distilled from: teacher.repo in {folder / RECIPE}.",
    )


def _lora(_: Path, names: list[str]) -> Found:
    if not set(LORA) & set(names):
        return None
    return (
        "it is a LoRA alone",
        LORA_FIX,
    )


def _training(_: Path, names: list[str]) -> Found:
    if not set(TRAINING) & set(names) and not any(name.startswith("random_states_") for name in names):
        return None
    return (
        "it is a checkpoint of a training, which is resumed from and not sampled from",
        "Give the folder that the training's end wrote, or load its network into a pipeline and save_pretrained that.",
    )


def _single(folder: Path, names: list[str]) -> Found:
    whole = [n for n in names if n.endswith(".safetensors") and not n.startswith("diffusion_pytorch_model")]
    if len(whole) == 1 and not {PART, *LONE, *PARTS} & set(names):
        return (
            f"it holds the single file {whole[0]}",
            f"Give {folder / whole[0]}, with teacher.pipeline (its diffusers class) and teacher.config.",
        )
    pickled = [n for n in names if n.endswith((".ckpt", ".pt", ".pth"))]
    if pickled and not whole and not {PART, *LONE, *PARTS} & set(names):
        return (
            f"it holds {pickled[0]}, a kind of file that can run code",
            "Give its .safetensors file, with teacher.pipeline and teacher.config.",
        )
    return None


def _other_runtime(_: Path, names: list[str]) -> Found:
    if any(name.endswith((".onnx", ".onnx_data")) for name in names):
        return "it is a network for ONNX", "Give the PyTorch pipeline that it was exported from."
    if any(name.endswith(".msgpack") for name in names):
        return "it is a network for Flax", "Give the PyTorch pipeline of the same model."
    return None


def _part(folder: Path, names: list[str]) -> Found:
    what = None
    if PART in names:
        what = _network(folder / PART)
    else:
        what = next((what for file, what in LONE.items() if file in names), None)
    if what is None:
        return None
    beside = [name for name, described in LONE.items() if name in names and described != what]
    if beside:
        return (
            f"{', '.join([PART] * (PART in names) + beside)} lie side by side, without sub-folders and index",
            "Download the pipeline again, with its folders.",
        )
    if (folder.parent / INDEX).is_file():
        return f"it is {what} alone", f"Give the pipeline folder {folder.parent}."
    return f"it is {what} alone", "Give the pipeline folder, the one with model_index.json and all parts."


def _network(path: Path) -> str:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return "a part"
    config = config if isinstance(config, dict) else {}
    kind = config.get("_class_name")
    if isinstance(kind, str) and kind:
        for word, name in (("ControlNet", "a ControlNet"), ("Transformer", "a transformer"), ("UNet", "a unet")):
            if word in kind:
                return f"{name} ({kind})"
        return f"a part ({kind})"
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    return f"a part ({named})" if isinstance(named, str) else "a part"


def _parts(folder: Path, names: list[str]) -> Found:
    held = [name for name in PARTS if name in names and (folder / name).is_dir()]
    if not held:
        return None
    return (
        f"it has the parts {', '.join(held)} and no {INDEX}",
        _deeper(folder) or f"Download {INDEX} too, or save the pipeline again with save_pretrained.",
    )


def _deeper(folder: Path) -> str | None:
    """What to give where pipeline folders lie below."""
    found = [path.parent for path in _below(folder, 2) if path.name == INDEX]
    if not found:
        return None
    return f"Give {found[0]}." if len(found) == 1 else f"Give one of those in it, such as {found[0]}."


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """The files of the folders in `folder`, down to `depth` folders."""
    for path in sorted(folder.iterdir()) if _readable(folder) else []:
        if path.is_dir() and depth:
            yield from _below(path, depth - 1)
        elif path.is_file():
            yield path


def _readable(folder: Path) -> bool:
    try:
        next(folder.iterdir(), None)
    except OSError:
        return False
    return True


KINDS: tuple[Callable[[Path, list[str]], Found], ...] = (
    _empty, _modular, _misspelt, _hub_cache, _run, _lora, _training, _single, _other_runtime, _part, _parts,
)  # fmt: skip
