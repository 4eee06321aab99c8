"""Published pipelines as tables: the keys and values of their configuration files, with the source of each.

Facts, not files: an entry holds what the JSON files of a pipeline folder say, by the part's name ("index" is
model_index.json). Keys that a file lacks are absent here too, and keys that no class takes are there. What is left out:
the maps of special tokens, the tokens that were added to a vocabulary, chat templates, and of safety checkers the keys
that repeat transformers' defaults. `reductions.py` says what the tests make smaller; `build.py` writes the folders.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ABSENT: Any = object()  # in what an entry changes of another's: the key is not there

CALLS: Mapping[str, Mapping[str, Any]] = {  # arguments that keep the stock call of a pipeline small
    "StableDiffusionPipeline": {"height": 64, "width": 64},  # diffusers sets old files' sample_size below 64 to 64
    "StableDiffusionXLPipeline": {"height": 64, "width": 64},
    "FluxPipeline": {"height": 32, "width": 32, "max_sequence_length": 16},
    "Flux2KleinPipeline": {"height": 32, "width": 32, "max_sequence_length": 16},
    "QwenImagePipeline": {"height": 32, "width": 32, "max_sequence_length": 16},
    "Krea2Pipeline": {"height": 32, "width": 32, "max_sequence_length": 16},
    "ZImagePipeline": {"height": 32, "width": 32, "max_sequence_length": 16},
    "ErnieImagePipeline": {"height": 64, "width": 64},
    "StableDiffusion3Pipeline": {"max_sequence_length": 16},
    "SanaPipeline": {
        "height": 64, "width": 64, "use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16,
        "complex_human_instruction": [],
    },
    "PixArtSigmaPipeline": {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16},
    "PixArtAlphaPipeline": {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16},
    "LDMTextToImagePipeline": {"height": 64, "width": 64},
    "WanPipeline": {"height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16},
    "CogVideoXPipeline": {"num_frames": 5},
    "LTXPipeline": {"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 16},
    "LTXConditionPipeline": {"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 16},
    "TextToVideoSDPipeline": {"height": 64, "width": 64, "num_frames": 2},
    "AudioLDMPipeline": {"audio_length_in_s": 0.16},
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A pipeline as it was published: the files of its parts, and where they lie (repository@commit)."""

    name: str
    source: str
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def pipeline(self) -> str:
        """The class that its index names."""
        return str(self.parts["index"]["_class_name"])

    @property
    def call(self) -> Mapping[str, Any]:
        """Arguments that keep its stock call small."""
        return CALLS.get(self.pipeline, {})

    @property
    def files(self) -> dict[str, Mapping[str, Any]]:
        """The content of its JSON files, by their paths in the folder."""
        return {path_of(name, content): content for name, content in self.parts.items()}


PUBLISHED: dict[str, Published] = {}


def path_of(part: str, content: Mapping[str, Any]) -> str:
    """Where the file of a part lies in a pipeline folder."""
    if part == "index":
        return "model_index.json"
    if "Scheduler" in str(content.get("_class_name")):
        return f"{part}/scheduler_config.json"
    if part.startswith("tokenizer"):
        return f"{part}/tokenizer_config.json"
    if part.startswith(("feature_extractor", "image_processor")):
        return f"{part}/preprocessor_config.json"
    return f"{part}/config.json"


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with these values in place of its own, nested ones too, and without what is ABSENT in `changes`."""
    out = dict(base)
    for key, value in changes.items():
        if value is ABSENT:
            out.pop(key)
        elif isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
            out[key] = changed(out[key], value)
        else:
            out[key] = value
    return out


def published(name: str, source: str, like: str | None = None, **parts: Any) -> None:
    """Enter a pipeline; with `like`, as what differs from that one."""
    PUBLISHED[name] = Published(name, source, changed(PUBLISHED[like].parts if like else {}, parts))


MODULES = (  # in this order, since an entry may be like an earlier one
    "stable_diffusion", "stable_diffusion_own", "stable_diffusion_2", "stable_diffusion_xl", "pixels", "flow",
    "flow_llm", "video", "audio", "indexes", "indexes_in_parts", "second_hand",
)  # fmt: skip


def load_all() -> dict[str, Published]:
    """Every entry, by name."""
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return dict(PUBLISHED)
