"""Whether the files of a pipeline hold the weights that its parts are made of, and whether those are numbers.

Names and shapes are compared before anything is loaded: the headers of the files with an empty network of the part's
class, by the library's own rules for renamed, tied and ignored weights. What a file lacks would be filled with random
numbers by transformers, and what does not fit its class left out, both without a word. NaN, infinities and zeros are
looked for in the loaded network, where it is.
"""

import re
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import list_repo_files
from torch import Tensor, nn

from scm_distill.artifacts import tensor_files
from scm_distill.artifacts.files import read_json
from scm_distill.errors import UserError, one_line
from scm_distill.progress import Reporter
from scm_distill.teachers import weight_files
from scm_distill.teachers.weight_files import Part
from scm_distill.teachers.zero_init import zero_at_first

PATIENCE = 2.0  # seconds of looking for NaN after which that is said
STATISTICS = ("running_mean", "running_var")  # buffers that training makes, as it does parameters
ADAPTER = (
    ".lora_A.",
    ".lora_B.",
    ".base_layer.",
    ".lora_magnitude_vector",
    ".lora_embedding_",
)  # names of peft's layers


@dataclass(frozen=True)
class Compared:
    """How the names in a part's files differ from those of its class, each in its own order.

    `wrong` are the tensors of another shape: name, shape in the file, shape in the class.
    """

    missing: Sequence[str]
    unexpected: Sequence[str]
    wrong: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]]


def download(
    folder: str,
    index: Mapping[str, object],
    repo: str,
    revision: str | None,
    *,
    variant: str | None,
    allow_pickle: bool,
) -> Path:
    """The local folder of a pipeline; the files of a Hub id are downloaded.

    Raises UserError where the Hub holds no files that are read, and whatever a download raises.
    """
    if Path(folder).is_dir():
        return Path(folder)
    safe = None if allow_pickle else True
    try:
        return Path(DiffusionPipeline.download(folder, revision=revision, variant=variant, use_safetensors=safe))
    except (OSError, ValueError):
        try:
            names = set(list_repo_files(folder, revision=revision))
        except Exception:  # a network may fail in many ways: then the first error says so
            names = set()
        if names:
            weight_files.choose(weight_files.parts_of(index, names), names, repo, variant=variant, pickle=allow_pickle)
        raise


def check_files(
    folder: Path, index: Mapping[str, object], repo: str, *, variant: str | None, allow_pickle: bool, report: Reporter
) -> None:
    """Hold the files of the pipeline in `folder`, of which `index` is the model_index.json, against its classes.

    `report` hears of weights that no part reads. Raises UserError, naming the part and the first weight, where one is
    missing, is named after a wrapper, or has another shape; and where a file is missing or is not there completely.
    """
    names = weight_files.names_below(folder)
    parts = weight_files.parts_of(index, names)
    chosen = weight_files.choose(parts, names, repo, variant=variant, pickle=allow_pickle)
    listed = [name for name, entry in index.items() if isinstance(entry, list | tuple)]
    weight_files.check_pointers(folder, listed)
    if variant:
        weight_files.check_endings(folder, listed)
    for part in parts:
        file = folder / chosen[part.name]
        files = tensor_files.shards(file) if file.suffix == ".json" else (file,)
        held: dict[str, Tensor] = {}
        for one in files:
            held |= _names_in(one)
        _check_names(part, folder / part.folder, held, repo, report, sharded=len(files) > 1)


def _names_in(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the meta device. Raises Damaged or UserError where it is not there completely."""
    if path.suffix == ".safetensors":
        return tensor_files.empty_tensors(tensor_files.header(path))
    tensor_files.check_whole(path)
    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # pickle has any
        raise UserError(f"{path} is no file of weights: {one_line(error)}", "Download it again.") from error
    return {name: x for name, x in content.items() if isinstance(x, Tensor)}


def _check_names(
    part: Part, folder: Path, held: dict[str, Tensor], repo: str, report: Reporter, *, sharded: bool
) -> None:
    config = folder / "config.json"
    if not config.is_file() or "quantization_config" in read_json(config):
        return  # the library says the former better, and only a quantizer knows its own names
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading gives them again
        if (net := _empty(part.kind, folder)) is None:
            return  # a configuration that its class does not take: loading says what is wrong with it
        if part.of_diffusers:
            compared = _of_diffusers(net, dict(held), sharded=sharded)
        else:
            compared = _of_transformers(part.kind, folder, dict(held))
    refuse_names(part.name, compared, repo, _shared_prefix(held, net))
    if compared.unexpected:
        n, first = len(compared.unexpected), compared.unexpected[0]
        report.say(f"{part.name}: {n} weight{'s' * (n > 1)} of its file {'are' if n > 1 else 'is'} not read: {first}")


def _empty(kind: Any, folder: Path) -> Any | None:
    """A network of this class and the configuration in `folder`, without weights; None where it cannot be made."""
    try:
        with accelerate.init_empty_weights():
            if hasattr(kind, "from_config"):
                return kind.from_config(kind.load_config(folder))
            return kind(kind.config_class.from_pretrained(folder))
    except Exception:  # each class has its own for what it does not take
        return None


def _of_diffusers(net: Any, held: dict[str, Tensor], *, sharded: bool) -> Compared:
    """The names by diffusers: of one file the attention blocks of old ones are renamed."""
    rename = getattr(net, "_fix_state_dict_keys_on_load", None)
    if rename is not None and not sharded:
        rename(held)
    wanted = net.state_dict()
    passed_over = net._keys_to_ignore_on_load_unexpected or []
    wrong = [
        (name, tuple(held[name].shape), tuple(x.shape))
        for name, x in wanted.items()
        if name in held and held[name].shape != x.shape
    ]
    missing = [name for name in wanted if name not in held]
    unexpected = [n for n in held if n not in wanted and not any(re.search(rule, n) for rule in passed_over)]
    return Compared(_learnt(net, missing), unexpected, wrong)


def _of_transformers(kind: Any, folder: Path, held: dict[str, Tensor]) -> Compared:
    """The names by transformers, which loads tensors without content into an empty network."""
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True, "device_map": {"": "meta"}}
    net, found = kind.from_pretrained(None, config=str(folder), state_dict=held, **options)
    order = {name: i for i, name in enumerate(net.state_dict())}
    wrong = [(name, tuple(a), tuple(b)) for name, a, b in found["mismatched_keys"]]
    missing = sorted(found["missing_keys"], key=lambda name: order.get(name, len(order)))
    return Compared(_learnt(net, missing), sorted(found["unexpected_keys"]), sorted(wrong))


def _learnt(net: nn.Module, names: Sequence[str]) -> list[str]:
    """Those of `names` that training makes; other buffers are computed by the class."""
    parameters = {name for name, _ in net.named_parameters(remove_duplicate=False)}
    return [name for name in names if name in parameters or name.endswith(STATISTICS)]


def refuse_names(part: str, compared: Compared, repo: str, shared: str = "") -> None:
    """Raises UserError where the names or shapes in the files of the `part` are not those of its class.

    `shared` is what all names of the files have in front, and none of the class's.
    """
    adapter = next((name for name in compared.unexpected if any(mark in f".{name}" for mark in ADAPTER)), None)
    if adapter is not None:
        raise weight_files.lora_attached(part, repo, adapter)
    missing = compared.missing
    if missing and (prefix := _prefix(missing, compared.unexpected)):
        raise _wrapped(part, repo, prefix, prefix + next(n for n in missing if prefix + n in compared.unexpected))
    strange = compared.unexpected
    if len(missing) > 1 and shared and strange and all(name.startswith(shared) for name in strange):
        raise _wrapped(part, repo, shared, strange[0])
    if missing:
        more = f" and {len(missing) - 1} other{'s' * (len(missing) > 2)}" if len(missing) > 1 else ""
        other = f", but {compared.unexpected[0]}" if compared.unexpected else ""
        raise UserError(
            f"The {part} of {repo} lacks {missing[0]}{more}{other}.",
            f"Its files are incomplete or not of {part}/config.json: download them again, or save the part anew.",
        )
    if compared.wrong:
        name, found, wanted = compared.wrong[0]
        raise UserError(
            f"{name} of the {part} of {repo} is {list(found)} in its file and {list(wanted)} by its config.json.",
            f"Take {part}/config.json and the weights from the same place.",
        )


def _wrapped(part: str, repo: str, prefix: str, example: str) -> UserError:
    return UserError(
        f"The weights of the {part} of {repo} are named after a wrapper: {example} begins with {prefix!r}.",
        f"Save it unwrapped, or its state dict with name.removeprefix({prefix!r}) for every name.",
    )


def _shared_prefix(held: Mapping[str, Tensor], net: nn.Module) -> str:
    """What all names of a file have in front and none of the network's has; empty where there is no such thing."""
    first = {name.partition(".")[0] for name in held}
    mine = {name.partition(".")[0] for name in net.state_dict()}
    return f"{first.pop()}." if len(first) == 1 and not first & mine and len(held) > 1 else ""


def _prefix(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """What most of the missing names have in front of them among the unexpected ones; empty where they have not."""
    ends = dict.fromkeys(missing)
    found: Counter[str] = Counter()
    for name in unexpected:
        for i, letter in enumerate(name):
            if letter == "." and name[i + 1 :] in ends:
                found[name[: i + 1]] += 1
                break
    prefix, times = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * times > len(missing) else ""


def check_values(pipeline: Any, repo: str, report: Reporter) -> None:
    """Raises UserError, naming the part and the first weight, where a loaded pipeline's weights are no trained ones.

    That is: one is NaN or infinite, or was in no file; all matrices of a part are zero; or one is, though its class
    starts it with random numbers and it is not of the input for the guidance scale, which is turned off that way.
    Biases, gates, tables and projections that start at zero may be zero. A buffer, such as a mask, may be infinite.
    """
    nets = [(name, net) for name, net in pipeline.components.items() if isinstance(net, nn.Module)]
    total = sum(x.nbytes for _, net in nets for x in net.state_dict().values())
    begin, done, said = time.monotonic(), 0, False
    for part, net in nets:
        learnt = {name for name, _ in net.named_parameters(remove_duplicate=False)}
        zero, matrices = [], 0
        for name, x in net.state_dict().items():
            if x.is_meta:
                raise UserError(f"The {part} of {repo} lacks {name}.", "Its file is incomplete, or of another model.")
            if not x.is_floating_point() or not x.numel():
                continue
            low, high = _extremes(x)
            if low != low or (name in learnt and not -float("inf") < low <= high < float("inf")):
                raise UserError(
                    f"The {part} of {repo} holds {'NaN' if low != low else 'infinity'} in {name}.",
                    "Take a checkpoint from before its training diverged, or one that was not saved in float16.",
                )
            is_matrix = name in learnt and sum(size > 1 for size in x.shape) > 1
            matrices += is_matrix
            zero += [name] * (is_matrix and low == high == 0)
            done += x.nbytes
            if not said and (said := time.monotonic() - begin > PATIENCE):
                report.say(f"looking for NaN in the weights: {done / 2**30:.1f} of {total / 2**30:.1f} GiB")
        if zero:
            _check_zeros(part, net, zero, matrices, repo)


def _extremes(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest number of a tensor, where it is; both NaN where it holds NaN."""
    flat = x.detach().flatten() if x.is_contiguous() else x.detach()
    if x.dtype.itemsize == 1:  # float8 has no minimum
        parts = [chunk.float().aminmax() for chunk in flat.flatten().split(2**24)]
        low, high = torch.stack([p.min for p in parts]).min(), torch.stack([p.max for p in parts]).max()
    else:
        low, high = flat.aminmax()
    low_high: list[float] = torch.stack([low, high]).double().tolist()
    return low_high[0], low_high[1]


def _check_zeros(part: str, net: nn.Module, zero: Sequence[str], matrices: int, repo: str) -> None:
    """Raises UserError where the `zero` matrices of `matrices` are more than a trained network has."""
    fix = "Its file is damaged or was written before it was trained: download or save it again."
    if len(zero) == matrices:
        raise UserError(f"The {part} of {repo} is all zeros, {zero[0]} first.", fix)
    suspicious = [name for name in zero if "guidance" not in name and "cond_proj" not in name]
    if suspicious:
        at_first = zero_at_first(net)
        suspicious = [name for name in suspicious if name not in at_first]
    if suspicious:
        raise UserError(f"{suspicious[0]} of the {part} of {repo} is all zeros.", fix)
