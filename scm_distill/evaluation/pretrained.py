"""Extractors that are transformers models: vision (FD-DINOv2), video (FVD), audio (FAD), and the CLIP score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scm_distill.artifacts.evaluation_record import ExtractorIdentity
from scm_distill.artifacts.files import sha256_of
from scm_distill.data.pictures import frames
from scm_distill.errors import UserError, one_line
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.inputs import mono, resize_of, spread
from scm_distill.evaluation.metrics import clip_score
from scm_distill.memory import out_of_memory

FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")  # of a Hub id; no other weights, no code
CLASS_TOKENS = ("cls_token", "class_embedding")


@dataclass(frozen=True)
class _Loaded:
    """A model in evaluation mode, on its device."""

    model: Any
    folder: Path  # that it was loaded from
    identity: ExtractorIdentity  # without resize and features
    has_pooler: bool  # False where the checkpoint has no weights for the pooler that the class would make


def _load(spec: str, device: torch.device, revision: str | None) -> _Loaded:
    """A transformers model by local folder or Hub id, from safetensors alone. Raises UserError."""
    from transformers import AutoModel

    folder, name, commit = _folder(spec, revision)
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        raise UserError(
            f"The extractor {spec} has no model.safetensors.", "Other formats are not read: give one that has it."
        )
    try:
        model, info = AutoModel.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # anything can come out of a damaged folder
        if out_of_memory(error):
            raise
        raise _failure(spec, error) from error
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise UserError(
            f"The extractor {spec} lacks weights of its {type(model).__name__}, such as {missing[0]}.",
            "Give the complete model.",
        )
    identity = ExtractorIdentity(name=type(model).__name__, id=name, sha256=sha256_of(*weights), revision=commit)
    model = model.to(device, torch.float32).eval().requires_grad_(False)
    return _Loaded(model, folder, identity, not info["missing_keys"])


def _folder(spec: str, revision: str | None) -> tuple[Path, str, str | None]:
    """The folder of `spec`, downloaded for a Hub id; its name without a path, or the id; and the id's commit."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return path, path.resolve().name, None
    if path.exists() or spec.startswith(("/", "./", "../", "~")) or spec.endswith("/") or spec.count("/") != 1:
        raise UserError(
            f"There is no extractor {spec}.",
            "Give blocks, digits, inception, a folder with a transformers model, or a Hub id such as "
            "facebook/dinov2-base.",
        )
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(spec, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the Hub's client has many kinds
        raise UserError(
            f"The extractor {spec} is no local folder, and could not be had from the Hub: {one_line(error, 240)}",
            "Check the name, the network and `hf auth whoami`; HF_HUB_OFFLINE=1 reads the local cache only.",
        ) from error
    return found, spec, found.name


def _failure(spec: str, error: Exception) -> UserError:
    return UserError(
        f"The extractor {spec} could not be used: {one_line(error, 240)}",
        "Give the folder that save_pretrained of a transformers model and of its preprocessor wrote, or its Hub id.",
    )


def _settings(loaded: _Loaded, spec: str) -> Mapping[str, Any]:
    """The preprocessor's configuration, as a file holds it: the image processors themselves may need torchvision."""
    from transformers import ImageProcessingMixin

    try:
        return dict(ImageProcessingMixin.get_image_processor_dict(loaded.folder)[0])
    except OSError as error:
        raise UserError(
            f"The extractor {spec} has no preprocessor_config.json.", "It says how images are resized: add it."
        ) from error


def _kind(model: Any) -> str:
    """The modality that a model is made for. Raises ValueError where it is none of ours."""
    if hasattr(model, "get_audio_features") or model.main_input_name in ("input_values", "input_features"):
        return "audio"
    if getattr(model.config, "num_frames", None) or getattr(model.config, "frames_per_clip", None):
        return "video"
    if hasattr(model, "get_image_features") or model.main_input_name == "pixel_values":
        return "image"
    raise ValueError(f"{type(model).__name__} takes {model.main_input_name}")


def open_pretrained(
    spec: str, device: torch.device, modality: str, *, revision: str | None, rate: int | None
) -> Extractor:
    """An extractor of a local folder or Hub id, tried on one empty sample. Raises UserError.

    `rate` are the samples a second of the sounds to come; the other parameters are as in `open_extractor`.
    """
    loaded = _load(spec, device, revision)
    model = loaded.model
    try:
        kind = _kind(model)
        if kind == modality:
            prepare, resize, settings = _preparation(loaded, spec, modality, rate)
            black = Image.new("RGB", (64, 64))
            empty = {"image": black, "video": [black], "audio": torch.zeros(rate or 1)}[kind]
            example = prepare(empty)[None].to(device)
            with torch.no_grad():
                net, output = _pooled(loaded, example)
                dim = net(example).shape[1]
    except UserError:
        raise
    except Exception as error:  # of a model that is called unlike all others, or a preprocessor that says nothing
        if out_of_memory(error):
            raise
        raise _failure(spec, error) from error
    if kind != modality:
        raise UserError(
            f"The extractor {spec} is a model of {kind}, and the samples are {modality}.",
            f"Give --extractor a model of {modality}, or blocks.",
        )
    identity = loaded.identity.model_copy(update={"resize": resize, "features": f"{output}, {dim}"})
    return Extractor(identity, prepare, net, device, settings, batch=64 if kind == "image" else 8)


def _preparation(
    loaded: _Loaded, spec: str, modality: str, rate: int | None
) -> tuple[Callable[[Any], Tensor], str, str]:
    """A function from one sample to the model's input, the same in words, and all its settings, for the cache's key."""
    if modality == "audio":
        return _sounds(loaded, rate)
    resize = resize_of(_settings(loaded, spec))
    if modality == "image":
        return resize, resize.rule, repr(resize)
    config = loaded.model.config
    count = int(getattr(config, "num_frames", None) or config.frames_per_clip)
    rule = f"{count} frames at even places (some twice where a clip has fewer), {resize.rule}"
    return lambda sample: torch.stack([resize(frame) for frame in spread(sample, count)]), rule, repr(resize)


def _sounds(loaded: _Loaded, rate: int | None) -> tuple[Callable[[Any], Tensor], str, str]:
    """As `_preparation`, for sounds of `rate` samples a second."""
    from transformers import AutoFeatureExtractor

    if rate is None:
        raise ValueError("sounds need their rate")
    extractor = AutoFeatureExtractor.from_pretrained(loaded.folder)
    own_rate = int(extractor.sampling_rate)
    most = getattr(extractor, "nb_max_samples", None)  # CLAP would cut longer ones at random

    def prepare(sample: Any) -> Tensor:
        wave = mono(sample, rate, own_rate)[:most].numpy()
        inputs = extractor(wave, sampling_rate=own_rate, return_tensors="pt")
        return torch.as_tensor(inputs["input_values" if "input_values" in inputs else "input_features"][0])

    resampling = "as it is" if rate == own_rate else f"by windowed sinc from {rate}"
    cut = f", the first {most / own_rate:g} s" if most else ""
    return prepare, f"mono, {own_rate} Hz {resampling}{cut}", repr(extractor.to_json_string())


def _pooled(loaded: _Loaded, example: Tensor) -> tuple[Callable[[Tensor], Tensor], str]:
    """A function from a batch of inputs, like `example`, to features (B, D), and which output of the model they are."""
    model = loaded.model
    if hasattr(model, "get_audio_features"):  # CLAP; a sound that is cut to its length is not "longer"

        def audio(x: Tensor) -> Tensor:
            return _embedding(
                model.get_audio_features(input_features=x, is_longer=torch.zeros(len(x), 1, device=x.device))
            )

        return audio, "audio embedding"
    if hasattr(model, "get_image_features"):
        return lambda x: _embedding(model.get_image_features(pixel_values=x)), "image embedding"
    name = model.main_input_name
    if loaded.has_pooler and getattr(model(**{name: example}), "pooler_output", None) is not None:
        return lambda x: model(**{name: x}).pooler_output, "pooler output"
    if any(key.endswith(CLASS_TOKENS) for key, _ in model.named_parameters()):
        return lambda x: model(**{name: x}).last_hidden_state[:, 0], "class token of the last layer"
    return lambda x: model(**{name: x}).last_hidden_state.mean(1), "mean of the last layer's tokens"


def _embedding(output: Any) -> Tensor:
    """The embedding (B, D) in what a CLIP or CLAP model returns: transformers 4 returns it alone, 5 in an object."""
    embedding: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return embedding


@dataclass(frozen=True)
class ClipScore:
    """How well images, or the frames of clips, fit their prompts, by the two towers of a CLIP model."""

    identity: ExtractorIdentity
    image: Extractor
    text: Callable[[Sequence[str]], Tensor]  # from N prompts to embeddings (N, D)

    @torch.no_grad()
    def __call__(self, samples: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Scores (N,) from 0 to 100; of a clip, the mean over its frames."""
        if len(samples) != len(prompts):
            raise ValueError(f"{len(samples)} samples and {len(prompts)} prompts")
        scores = []
        for sample, text in zip(samples, self.text(prompts), strict=True):
            shown = [sample] if isinstance(sample, Image.Image) else frames(sample)
            scores.append(clip_score(self.image(shown), text.expand(len(shown), -1)).mean())
        return torch.stack(scores)


def open_clip_score(spec: str, device: torch.device | str = "cpu", *, revision: str | None = None) -> ClipScore:
    """The CLIP score by a CLIPModel with its tokenizer, a local folder or a Hub id. Raises UserError."""
    from transformers import AutoTokenizer

    device = torch.device(device)
    loaded = _load(spec, device, revision)
    model = loaded.model
    if model.config.model_type != "clip":
        raise UserError(
            f"{spec} is a {type(model).__name__}, and the CLIP score needs a CLIPModel.",
            "Give one such as openai/clip-vit-large-patch14.",
        )
    settings = _settings(loaded, spec)
    try:
        resize = resize_of(settings)
        tokenizer = AutoTokenizer.from_pretrained(loaded.folder)
    except Exception as error:  # missing files and damaged ones raise many kinds
        raise _failure(spec, error) from error
    longest = model.config.text_config.max_position_embeddings

    def text(prompts: Sequence[str]) -> Tensor:
        rows = []
        for i in range(0, len(prompts), 64):
            tokens = tokenizer(
                list(prompts[i : i + 64]), padding=True, truncation=True, max_length=longest, return_tensors="pt"
            )
            rows.append(_embedding(model.get_text_features(**tokens.to(device))).float().cpu())
        return torch.cat(rows)

    identity = loaded.identity.model_copy(
        update={"resize": resize.rule, "features": f"prompts cut at {longest} tokens"}
    )
    net, _ = _pooled(loaded, torch.empty(0))
    return ClipScore(identity, Extractor(identity, resize, net, device, repr(resize)), text)
