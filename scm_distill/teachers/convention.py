"""How a pipeline calls its denoiser: learnt from the denoiser's arguments for one sample and for two.

cond    the arguments that differ from sample to sample, by their path (maths/cond.py)     {path: (B, ...)}
path    'encoder_hidden_states', or 'added_cond_kwargs.text_embeds' for a nested argument
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.maths.cond import SCALE, Cond
from scm_distill.teachers.conversion import Conversion


class Unclear(Exception):
    """Why a denoiser's calling convention cannot be learnt, as a clause of a sentence about the pipeline."""


@dataclass
class Convention:
    """Calls net(x_nat, tau, cond) as the stock pipeline does, and returns what the pipeline hands to its scheduler.

    `x` and `time` are the names of the arguments of the sample and the time. `fixed` holds the other arguments, of one
    sample; `batched` says which of them hold the batch in which dimension (`rows` entries a sample, next to each
    other), `listed` which are lists of one tensor a sample, and `repeated` which are lists of equal entries a sample.
    """

    x: str
    time: str
    fixed: dict[str, Any]
    sample_shape: tuple[int, ...]
    x_shape: tuple[int, ...]  # of one sample, as the denoiser takes it
    batched: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)  # entries of one sample in the batch dimension, where not one
    extra: tuple[int, Tensor] | None = None  # what the pipeline appends to x, and in which dimension
    shared: set[str] = field(default_factory=set)  # not batched, but of the prompt's own: rotary positions, say
    listed: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    optional: dict[str, int] = field(default_factory=dict)  # batched, but not in every call: masks of padding
    times: set[str] = field(default_factory=set)  # further arguments that are told the time
    narrow: tuple[int, ...] | None = None  # the extent of the prediction in a larger output, by dimension
    sign: float = 1.0
    conversion: Conversion | None = None  # of the denoiser's x_0 into a velocity
    scale_of: tuple[str, Callable[[Tensor], Tensor]] | None = None  # the argument that the guidance scale goes to
    known: Tensor | None = None  # the times (B,) of the calls to come, on the host: see Network.knowing
    moved: dict[tuple[str, torch.device, torch.dtype], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batchable(self) -> bool:
        """Whether samples of different prompts may share a call."""
        return not self.shared

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        """The native prediction (B, ...) of `net` at x_nat (B, ...) and its own time `tau` (B,)."""
        arguments = {name: self._fill(value, name, cond, x_nat) for name, value in self.fixed.items()}
        if self.scale_of and SCALE in cond:
            path, embed = self.scale_of
            arguments[path] = embed(cond[SCALE].to(x_nat.device))
        x = x_nat
        if self.extra:
            dim, appended = self.extra
            x = torch.cat([x, self._beside(x, appended, "", x.dtype).expand(len(x), *appended.shape[1:])], dim)
        x = x.reshape(len(x), *self.x_shape)
        arguments[self.x] = list(x.unbind(0)) if self.x in self.listed else x
        for path in self.optional:
            _put(arguments, path, cond[path].movedim(0, self.optional[path]) if path in cond else None)
        for name in (self.time, *self.times):
            arguments[name] = tau
        return self.prediction(net(**arguments), len(x_nat), arguments)

    def prediction(self, output: Any, batch: int, arguments: Mapping[str, Any]) -> Tensor:
        """The native prediction (B, ...) in the denoiser's `output` for `arguments`, as its scheduler is given it."""
        raw = first_tensor(output)
        if self.narrow:
            for dim, extent in enumerate(self.narrow, start=1):
                raw = raw.narrow(dim, 0, extent)
        raw = raw.reshape(batch, *self.sample_shape)
        if self.conversion:
            raw = self.conversion(raw, self.sample(arguments, slice(None)), arguments[self.time])
        return self.sign * raw

    def sample(self, arguments: Mapping[str, Any], part: slice = slice(0, 1)) -> Tensor:
        """x_nat (n, ...) of the samples `part` in the arguments of a stock call."""
        x = arguments[self.x]
        x = torch.stack(x) if isinstance(x, list) else x
        if self.extra:
            dim = self.extra[0]
            x = x.narrow(dim, 0, self.sample_shape[dim - 1])
        return x[part].reshape(-1, *self.sample_shape)

    def cond(self, arguments: Mapping[str, Any], part: slice = slice(None)) -> dict[str, Tensor]:
        """The conditions of the samples `part` in the arguments of a stock call, batch first."""
        cond = {}
        for path, dim in self.batched.items():
            value = at(arguments, path).movedim(dim, 0)
            cond[path] = (value.unflatten(0, (-1, self.rows[path])) if path in self.rows else value)[part]
        for path, dim in self.optional.items():
            if isinstance(value := at(arguments, path, None), Tensor):
                cond[path] = value.movedim(dim, 0)[part]
        cond |= {path: torch.as_tensor(at(arguments, path))[None] for path in self.shared}
        cond |= {path: torch.stack(arguments[path][part]) for path in self.listed - {self.x}}
        return {path: value.detach().clone() for path, value in cond.items()}

    def _fill(self, value: Any, path: str, cond: Cond, x: Tensor) -> Any:
        """The argument at `path`, which is `value` for one sample, for the batch of `cond`."""
        if path in self.batched:
            value = cond[path].flatten(0, 1) if path in self.rows else cond[path]
            return value.movedim(0, self.batched[path]).contiguous()  # some denoisers view their arguments
        if path in self.shared:
            return cond[path][0]  # one bucket, so one value
        if path in self.listed:
            return list(cond[path].unbind(0))
        if path in self.repeated:
            return [value[0]] * len(x)
        if isinstance(value, Mapping):
            return {key: self._fill(v, f"{path}.{key}", cond, x) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._fill(v, f"{path}.{i}", cond, x) for i, v in enumerate(value))
        return self._beside(x, value, path, value.dtype) if isinstance(value, Tensor) else value

    def _beside(self, x: Tensor, value: Tensor, path: str, dtype: torch.dtype) -> Tensor:
        """`value` on the device of `x`, copied there once: each copy makes the host wait."""
        if value.device == x.device and value.dtype == dtype:
            return value
        key = path, x.device, dtype
        if (kept := self.moved.get(key)) is not None:
            return kept
        moved = value.to(x.device, dtype)
        if type(moved) is Tensor:  # no fake one
            self.moved[key] = moved
        return moved


def learn(one: dict[str, Any], two: dict[str, Any], x: str, time: str, sample_shape: tuple[int, ...]) -> Convention:
    """The convention that fits the denoiser's arguments for one sample and for two equal ones. Raises Unclear."""
    listed = isinstance(one[x], list)
    x_one, x_two = one[x][0], two[x][1]
    fixed = {name: value for name, value in one.items() if name not in (x, time)}
    convention = Convention(x, time, fixed, sample_shape, tuple(x_one.shape), listed={x} if listed else set())
    if torch.Size(sample_shape).numel() != x_one.numel():
        longer = [d for d, size in enumerate(sample_shape) if x_one.ndim == len(sample_shape) and x_one.shape[d] > size]
        others = [d for d in range(x_one.ndim) if d not in longer]
        if len(longer) != 1 or any(x_one.shape[d] != sample_shape[d] for d in others):
            raise Unclear(f"its denoiser takes a sample of {tuple(x_one.shape)} where the scheduler has {sample_shape}")
        size = sample_shape[longer[0]]
        appended, again = (v.narrow(longer[0], size, v.shape[longer[0]] - size) for v in (x_one, x_two))
        if not torch.equal(appended, again):
            raise Unclear("what its pipeline appends to the sample differs between two equal samples")
        convention.extra = (longer[0] + 1, appended[None].clone())
    for name, value in fixed.items():
        _compare(value, two.get(name), name, convention)
    return convention


def _compare(one: Any, two: Any, path: str, convention: Convention) -> None:
    """Note in `convention` how the argument at `path` is batched. Raises Unclear."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.shape == two.shape:
            return
        doubled = [d for d in range(one.ndim) if one.ndim == two.ndim and two.shape[d] == 2 * one.shape[d]]
        doubled = [d for d in doubled if one.shape[d] == 1] or doubled
        if len(doubled) != 1:
            raise Unclear(f"its argument {path} is {tuple(one.shape)} for one sample and {tuple(two.shape)} for two")
        convention.batched[path] = doubled[0]
        if one.shape[doubled[0]] > 1:
            convention.rows[path] = one.shape[doubled[0]]
    elif isinstance(one, Mapping) and isinstance(two, Mapping):
        for key, value in one.items():
            _compare(value, two.get(key), f"{path}.{key}", convention)
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) == len(two):
            for i, (a, b) in enumerate(zip(one, two, strict=True)):
                _compare(a, b, f"{path}.{i}", convention)
        elif len(one) == 1 and len(two) == 2:
            (convention.listed if isinstance(one[0], Tensor) else convention.repeated).add(path)
        else:
            raise Unclear(f"its argument {path} has {len(one)} entries for one sample and {len(two)} for two")
    elif type(one) is not type(two) or (one != two and not _alike(one, two)):
        raise Unclear(f"its argument {path} is {one!r} for one sample and {two!r} for two")


def _alike(one: Any, two: Any) -> bool:
    """Whether two objects of one class, made anew for each call, hold the same: an empty cache, say."""
    if type(one) is not type(two):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(_alike(a, b) for a, b in zip(one, two, strict=True))
    if isinstance(one, Tensor):
        return one.shape == two.shape and torch.equal(one, two)
    if hasattr(one, "__dict__") and "__eq__" not in vars(type(one)):
        return _alike(list(vars(one).values()), list(vars(two).values()))
    return bool(one == two)


def learn_optional(convention: Convention, one: dict[str, Any], unequal: dict[str, Any]) -> None:
    """Note as `optional` what a call for two prompts of unequal lengths is given and one for a single prompt is not.

    Raises Unclear where the batch dimension of such an argument cannot be told.
    """
    mine = {path for path, _ in leaves(one)}
    lists = {convention.x, *convention.listed, *convention.repeated}
    for path, value in leaves(unequal):
        if path in mine or any(path == name or path.startswith(f"{name}.") for name in lists):
            continue
        dims = [d for d in range(value.ndim) if value.shape[d] == 2]
        if not dims:
            raise Unclear(f"its argument {path} comes and goes with the prompt")
        convention.optional[path] = dims[0]


def learn_times(convention: Convention, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Note as `times` the arguments that equal the time in two steps of one call, where the time differs."""
    for name, value in first.items():
        both = ((value, first[convention.time]), (second.get(name), second[convention.time]))
        same = all(isinstance(v, Tensor) and v.shape == t.shape and torch.equal(v, t.to(v)) for v, t in both)
        if name != convention.time and same and not torch.equal(both[0][1], both[1][1]):
            convention.times.add(name)
            convention.batched.pop(name, None)


def learn_shared(convention: Convention, one: dict[str, Any], other: dict[str, Any]) -> None:
    """Note as `shared` the arguments that are not batched and yet differ between two prompts. Raises Unclear."""
    explained = convention.listed | {convention.x, convention.time, *convention.batched, *convention.optional}
    mine, theirs = (
        {
            path: value
            for path, value in leaves(arguments)
            if path not in explained and path.split(".")[0] not in explained
        }
        for arguments in (one, other)
    )
    for path, value in mine.items():
        if path not in theirs:
            raise Unclear(f"its argument {path} comes and goes with the prompt")
        if value.shape != theirs[path].shape or not torch.equal(value, theirs[path].to(value)):
            convention.shared.add(path)


def at(arguments: Mapping[str, Any], path: str, *missing: Any) -> Any:
    """The value at a path in nested arguments; `missing`, if given, where there is none. Raises KeyError."""
    value: Any = arguments
    for key in path.split("."):
        if missing and not (isinstance(value, list | tuple) or (isinstance(value, Mapping) and key in value)):
            return missing[0]
        value = value[int(key)] if isinstance(value, list | tuple) else value[key]
    return value


def _put(arguments: dict[str, Any], path: str, value: Tensor | None) -> None:
    """Set the value at a path of nested mappings; with None it is left out where it is nested."""
    *outer, last = path.split(".")
    for key in outer:
        arguments = arguments[key]
    if value is not None or not outer:
        arguments[last] = value
    else:
        arguments.pop(last, None)


def first_tensor(output: Any) -> Tensor:
    """The prediction in the output of a denoiser: its first entry, stacked where that is a list."""
    first = output if isinstance(output, Tensor | list) else output[0]
    return torch.stack(first) if isinstance(first, list) else first


def leaves(arguments: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a call's arguments, with its path."""
    for key, value in arguments.items():
        path = f"{prefix}{key}"
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, Mapping):
            yield from leaves(value, f"{path}.")
        elif isinstance(value, list | tuple):
            yield from leaves({str(i): v for i, v in enumerate(value)}, f"{path}.")
