"""A pipeline folder out of published configuration files: each part built in small, its weights drawn at random.

Every JSON file has the published keys and no other; weights are safetensors under the names of their time.
"""

import inspect
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion import safety_checker
from safetensors.torch import save_file
from torch import nn
from zoo import parts

from published import tokenizers
from published.reductions import ENCODER, REDUCED, encoder, reduced

Files = Mapping[str, Any]  # the content of each JSON file of a pipeline folder, by its path in it

CLIP = ("text_model.", "text_projection.")  # how names of CLIP begin in every published file
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # in VAEs before 0.18


def class_of(library: str, name: str, config: Mapping[str, Any]) -> Any:
    """The class of a part that an index names as [library, name]."""
    if name == "Transformer2DModel":  # of DiT and PixArt, until diffusers 0.29
        pixart = config.get("norm_type") == "ada_norm_single"
        return diffusers.PixArtTransformer2DModel if pixart else diffusers.DiTTransformer2DModel
    for module in (diffusers, transformers, getattr(diffusers.pipelines, library, None), safety_checker):
        if module is not None and hasattr(module, name):
            return getattr(module, name)
    raise LookupError(f"{library}.{name}")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


@torch.no_grad()
def network(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """The network of a (reduced) configuration, with random weights that leave no input unused."""
    if getattr(kind, "config_class", None) is not None:  # transformers' own
        return parts.awaken(kind(kind.config_class.from_dict(dict(config))))
    return parts.awaken(kind.from_config(dict(config)))


def weights(net: nn.Module, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a network by the names that a file of this version of the libraries has for them."""
    version = tuple(int(n) for n in str(config.get("_diffusers_version", "1.0")).split(".")[:2])
    out = {}
    for name, value in net.state_dict().items():
        if isinstance(net, diffusers.AutoencoderKL) and version < (0, 18) and "attentions" in name:
            for new, old in OLD_ATTENTION.items():
                name = name.replace(f".{new}.", f".{old}.")
        out[name] = value.clone().contiguous()
    if isinstance(net, transformers.CLIPTextModel | transformers.CLIPTextModelWithProjection):
        out = {name if name.startswith(CLIP) else f"{CLIP[0]}{name}": value for name, value in out.items()}
        if str(config.get("transformers_version")) < "4.31":  # a buffer, until then
            out["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return out


def write_part(folder: Path, name: str, kind: Any, config: dict[str, Any], table: Mapping[str, Any]) -> None:
    """Write one network: its configuration, reduced by `table`, and its weights."""
    config = encoder(config) if table is ENCODER else reduced(config, table)
    if "norm_num_groups" in inspect.signature(kind.__init__).parameters and "norm_num_groups" not in config:
        widths = config["block_out_channels"]  # multiples of the 32 groups of the default
        config["block_out_channels"] = [width * 32 // min(widths) for width in widths]
    if kind is diffusers.UNet2DModel:  # each level but the last halves the image
        size = max(8, 2 ** (len(config["block_out_channels"]) - 1))
        config["sample_size"] = [size, size] if isinstance(config["sample_size"], list) else size
    write_json(folder / name / "config.json", config)
    net = network(kind, config)
    transformers_own = isinstance(net, transformers.PreTrainedModel)
    file = "model.safetensors" if transformers_own else "diffusion_pytorch_model.safetensors"
    save_file(weights(net, config), str(folder / name / file), {"format": "pt"})


def build(files: Files, folder: Path) -> None:
    """Write the pipeline of these files to `folder`."""
    index = files["model_index.json"]
    write_json(folder / "model_index.json", reduced(index, REDUCED["index"]))
    with torch.random.fork_rng():
        for name, entry in index.items():
            if not isinstance(entry, list) or len(entry) != 2 or entry[0] is None or name.startswith("_"):
                continue
            torch.random.manual_seed(zlib.crc32(name.encode()))
            _component(files, folder, name, *entry)


def _component(files: Files, folder: Path, name: str, library: str, kind: str) -> None:
    own = {path: content for path, content in files.items() if path.startswith(f"{name}/")}
    if "Tokenizer" in kind or "Processor" in kind or "FeatureExtractor" in kind:
        for path, content in own.items():
            write_json(folder / path, tokenizers.small(content))
        if "Tokenizer" in kind:
            tokenizers.write_vocabulary(folder / name, kind)
        return
    if kind.endswith("Scheduler"):
        for path, content in own.items():
            write_json(folder / path, content)
        return
    config = own.get(f"{name}/config.json")
    if config is None:
        return
    cls = class_of(library, kind, config)
    table = REDUCED.get(str(config.get("_class_name") or kind), REDUCED.get(cls.__name__, ENCODER))
    if issubclass(cls, transformers.PreTrainedModel) and cls.__name__ not in REDUCED:
        table = ENCODER
    write_part(folder, name, cls, config, table)
