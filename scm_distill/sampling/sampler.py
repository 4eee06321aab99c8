"""Students and teachers as samplers: seeds and conditions in, samples out, with what they cost.

Sample i depends on its seed and its condition alone: it is what the stock call of the card makes of them.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from scm_distill.errors import UserError, one_line
from scm_distill.progress import Reporter, Silent
from scm_distill.sampling.backends import Facts
from scm_distill.sampling.instruments import compiled, counted, finite, free, mean_difference

T = TypeVar("T")

WARM_STEPS = 2  # of the call before the clock runs
SAME, SAME_HALF = 5e-3, 5e-2  # largest mean difference of a batch to its samples alone, in standard deviations


class Maker(Protocol):
    """A pixel UNet or a stock pipeline."""

    facts: Facts
    call: dict[str, Any]  # further arguments of the stock call

    @property
    def guidance(self) -> dict[str, Any]:
        """What guides a teacher's call."""
        ...

    @property
    def nets(self) -> list[nn.Module]:
        """The denoisers."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether nothing is drawn after the start."""
        ...

    def place(self, device: torch.device) -> None:
        """Move everything."""
        ...

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that cannot be taken."""
        ...

    def batch(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int) -> list[Any]:
        """Several samples in one call."""
        ...

    def one(self, seed: int, condition: Any, steps: int) -> Any:
        """One sample by the documented call."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Samples as the pipeline returns them, network evaluations a sample, and seconds of the whole stock call."""

    samples: list[Any]
    nfe: float
    seconds: float


@dataclass
class Sampler:
    """Draws from a maker in batches, on `device`; halves `size` where memory does not suffice.

    Before the first batch of several, two samples are drawn together and alone: where they differ, as where a pipeline
    lets the padding of a longer prompt be seen, all are drawn one by one, and `reason` says so.
    """

    maker: Maker
    device: torch.device
    size: int  # samples a call, at most
    report: Reporter = field(default_factory=Silent)
    compiled_in: float = 0.0  # seconds of the first calls of compiled denoisers
    reason: str | None = None  # why samples are drawn one by one
    compile: bool = False
    _warm: set[tuple[int, int]] = field(default_factory=set)
    _probed: set[bool] = field(default_factory=set)
    _placed: bool = False
    _compiled: bool = False

    @property
    def facts(self) -> Facts:
        """What is drawn, and how."""
        return self.maker.facts

    @property
    def call(self) -> dict[str, Any]:
        """The arguments of its stock call, without prompt and seed."""
        return self.maker.call

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that cannot be taken."""
        self.maker.check(steps)

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoisers' weights."""
        dtype: torch.dtype = next(self.maker.nets[0].parameters()).dtype
        return dtype

    @property
    def deterministic(self) -> bool:
        """Whether a sample follows from its first noise: the scheduler draws none after it."""
        self._place()
        return self.maker.deterministic

    def draw(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int | None = None) -> Drawn:
        """One sample for each seed and condition: a prompt, a label, or None. Raises UserError."""
        parts = list(self.stream(seeds, conditions, steps))
        samples = [sample for part in parts for sample in part.samples]
        rows = sum(part.nfe * len(part.samples) for part in parts)
        return Drawn(samples, rows / len(samples), sum(part.seconds for part in parts))

    def stream(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int | None = None) -> Iterator[Drawn]:
        """The same, batch by batch."""
        steps = steps or self.facts.default_steps
        self.check(steps)
        self._place()
        self._probe(conditions, steps)
        if self.compile and not self._compiled:
            self._compiled = True
            for net in self.maker.nets:
                compiled(net)
        done = 0
        while done < len(seeds):
            size = min(self.size, len(seeds) - done)
            chosen = slice(done, done + size)
            work = functools.partial(self._timed, seeds[chosen], conditions[chosen], steps)
            drawn = self._within_memory(size, work)
            if drawn is not None:
                done += size
                yield drawn

    @property
    def guidance(self) -> dict[str, Any]:
        """What guides a teacher's call; empty where the call is left to itself."""
        return self.maker.guidance

    def ready(self, conditions: Sequence[Any]) -> None:
        """Move everything to the device, and settle whether a batch of such conditions can be drawn in one call."""
        self._place()
        self._probe(conditions, WARM_STEPS)

    def release(self) -> None:
        """Give the device's memory back; the next draw moves everything there again."""
        self.maker.place(torch.device("cpu"))
        self._placed = False
        free()

    def _place(self) -> None:
        if self._placed:
            return
        try:
            self.maker.place(self.device)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The pipeline does not fit on {self.device} (beside the other one, where two are compared).",
                "Try --dtype bf16 or another --device.",
            ) from error
        self._placed = True

    def _probe(self, conditions: Sequence[Any], steps: int) -> None:
        """Take samples one by one from here on, if two in a batch are not what they are alone."""
        if self.size == 1 or len(conditions) == 1 or self.facts.pixels:
            return
        pair = [min(conditions, key=lambda c: len(str(c))), max(conditions, key=lambda c: len(str(c)))]
        unequal = pair[0] != pair[1]
        if {True, unequal} & self._probed:
            return
        few = min(steps, WARM_STEPS)
        with finite(self.maker.nets, self.dtype):
            alone = [
                self._within_memory(1, lambda s=seed, c=condition: self._call([s], [c], few)[0])  # type: ignore[misc]
                for seed, condition in enumerate(pair)
            ]
        self._probed.add(unequal)

        def together() -> float | str:
            try:
                both = self.maker.batch([0, 1], pair, few)
                return max(map(mean_difference, alone, both))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a pipeline raises that takes no batch
                return f"{type(error).__name__}: {one_line(error, 120)}"

        outcome = self._within_memory(2, together)
        if outcome is None:
            return
        if isinstance(outcome, str):
            self.reason = f"its stock call takes no batch ({outcome})"
        elif not outcome <= (SAME if self.dtype == torch.float32 else SAME_HALF):
            self.reason = f"samples in a batch differ from those drawn alone by {outcome:.1%}"
        if self.reason:
            self.size = 1
            self.report.say(f"one by one: {self.reason}")

    def _timed(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int) -> Drawn:
        few = min(steps, WARM_STEPS)
        if (len(seeds), few) not in self._warm:
            begin = time.perf_counter()
            with finite(self.maker.nets, self.dtype):
                self._call(seeds, conditions, few)
            self._synchronize()
            self._warm.add((len(seeds), few))
            if self.compile:
                self.compiled_in += time.perf_counter() - begin
        with counted(self.maker.nets) as rows:
            begin = time.perf_counter()
            samples = self._call(seeds, conditions, steps)
            self._synchronize()
            seconds = time.perf_counter() - begin
        return Drawn(samples, sum(rows) / len(samples), seconds)

    def _call(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int) -> list[Any]:
        try:
            if len(seeds) == 1:
                return [self.maker.one(seeds[0], conditions[0], steps)]
            return self.maker.batch(seeds, conditions, steps)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a pipeline raises that does not like its call
            reason = one_line(error, 300)
            if self.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise UserError(f"The denoiser does not compile: {reason}", "Leave --compile away.") from error
            name = type(getattr(self.maker, "pipeline", self.maker)).__name__
            raise UserError(
                f"Stock diffusers refuses this call of {name}: {type(error).__name__}: {reason}",
                "Give --steps 2, and to --compare the teacher that the student came from.",
            ) from error

    def _within_memory(self, size: int, work: Callable[[], T]) -> T | None:
        """Do it; None, and half as many samples a call from here on, where memory does not suffice."""
        try:
            return work()
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise UserError(
                    f"One sample needs more memory than {self.device} has.",
                    "Try --dtype bf16, another --device, or a smaller sample in the call.",
                ) from error
        self.size = max(1, size // 2)
        free()
        self.report.say(f"out of memory with {size} samples a call: {self.size} from here on")
        return None

    def _synchronize(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
