"""Students and teachers as samplers: seeds and conditions in, samples out, with what they cost.

Sample i depends on its seed and its condition alone: it is what the stock call of the card makes of them.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from scm_distill.errors import UserError, one_line
from scm_distill.maths.compare import largest
from scm_distill.memory import out_of_memory
from scm_distill.progress import Reporter, Silent
from scm_distill.sampling.backends import Condition, Facts
from scm_distill.sampling.instruments import compiled, counted, finite, free, mean_difference

T = TypeVar("T")

WARM_STEPS = 2  # of the call before the clock runs
SAME, SAME_HALF = 5e-3, 5e-2  # largest mean difference of a batch to its samples alone, in standard deviations


class Backend(Protocol):
    """Draws samples: a pixel UNet or a stock pipeline, see backends.py."""

    facts: Facts
    call: Mapping[str, Any]  # further arguments of the stock call
    guidance: Mapping[str, Any]  # of a teacher's call

    @property
    def nets(self) -> list[nn.Module]:
        """The denoisers whose calls are counted."""
        ...

    @property
    def flagged(self) -> tuple[bool, ...]:
        """Which samples of the last call a safety checker flagged; empty without one."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether no noise is drawn after the start."""
        ...

    def place(self, device: torch.device) -> None:
        """Move all networks to `device`."""
        ...

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that cannot be taken."""
        ...

    def draw_batch(self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int) -> list[Any]:
        """One sample for each seed and condition, in one call."""
        ...

    def draw_one(self, seed: int, condition: Condition, steps: int) -> Any:
        """The sample that the call of the model card gives for this seed."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Samples as the pipeline returns them, and what they cost."""

    samples: list[Any]
    nfe: float  # network function evaluations a sample; classifier-free guidance counts twice
    seconds: float  # of the whole stock call: encoders, denoiser and decoder
    flagged: tuple[bool, ...]  # whether each sample was flagged by a safety checker, and is black


@dataclass
class Sampler:
    """Draws in batches of at most `size` on `device`, and halves `size` where memory does not suffice.

    Before the first batch of several, two samples are drawn together and alone: where they differ, as where the padding
    of a longer prompt changes the result, all are drawn one by one, for the `reason` that is told then.
    """

    backend: Backend
    device: torch.device
    size: int  # samples a call
    report: Reporter = field(default_factory=Silent)
    compiled_in: float = 0.0  # seconds of the first calls of compiled denoisers
    reason: str | None = None  # why samples are drawn one by one; None where they are not
    compile: bool = False  # whether denoisers are compiled by torch.compile before they are timed
    _warm: set[tuple[int, int]] = field(default_factory=set)
    _probed: set[bool] = field(default_factory=set)
    _placed: bool = False
    _compiled: bool = False

    @property
    def facts(self) -> Facts:
        """What is drawn, and by which scheduler."""
        return self.backend.facts

    @property
    def call(self) -> Mapping[str, Any]:
        """The arguments of the stock call beside prompt, seed and steps."""
        return self.backend.call

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that cannot be taken."""
        self.backend.check(steps)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the denoisers' weights."""
        dtype: torch.dtype = next(self.backend.nets[0].parameters()).dtype
        return dtype

    @property
    def deterministic(self) -> bool:
        """Whether a sample depends on its first noise alone: the scheduler draws none after it."""
        self._place()
        return self.backend.deterministic

    def draw(self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int | None = None) -> Drawn:
        """One sample for each seed and condition, in `steps` or the default number of steps. Raises UserError."""
        parts = list(self.stream(seeds, conditions, steps))
        samples = [sample for part in parts for sample in part.samples]
        rows = sum(part.nfe * len(part.samples) for part in parts)
        flags = tuple(flag for part in parts for flag in part.flagged)
        return Drawn(samples, rows / len(samples), sum(part.seconds for part in parts), flags)

    def stream(
        self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int | None = None
    ) -> Iterator[Drawn]:
        """As `draw`, but each batch is yielded as soon as it is drawn."""
        steps = steps or self.facts.default_steps
        self.check(steps)
        self._place()
        self._probe(conditions, steps)
        if self.compile and not self._compiled:
            self._compiled = True
            for net in self.backend.nets:
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
    def guidance(self) -> Mapping[str, Any]:
        """The guidance arguments of a teacher's call; empty where its defaults are taken."""
        return self.backend.guidance

    def ready(self, conditions: Sequence[Condition]) -> None:
        """Move all networks to the device, and find out whether a batch of `conditions` can be drawn in one call."""
        self._place()
        self._probe(conditions, WARM_STEPS)

    def release(self) -> None:
        """Move all networks to the host and free the device's memory; the next draw moves them back."""
        self.backend.place(torch.device("cpu"))
        self._placed = False
        free()

    def _place(self) -> None:
        if self._placed:
            return
        try:
            self.backend.place(self.device)
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"The pipeline does not fit on {self.device} (beside the other one, where two are compared).",
                "Try --dtype bf16 or another --device.",
            ) from error
        self._placed = True

    def _probe(self, conditions: Sequence[Condition], steps: int) -> None:
        """Draw one by one from now on, if two samples in a batch differ from the same two drawn alone."""
        if self.size == 1 or len(conditions) == 1 or self.facts.pixels:
            return
        pair = [min(conditions, key=lambda c: len(str(c))), max(conditions, key=lambda c: len(str(c)))]
        unequal = pair[0] != pair[1]
        if {True, unequal} & self._probed:
            return
        few = min(steps, WARM_STEPS)
        with finite(self.backend.nets, self.dtype):
            alone = [
                self._within_memory(1, lambda s=seed, c=condition: self._call([s], [c], few)[0])  # type: ignore[misc]
                for seed, condition in enumerate(pair)
            ]
        self._probed.add(unequal)

        def together() -> float | str:
            try:
                both = self.backend.draw_batch([0, 1], pair, few)
                return largest(*map(mean_difference, alone, both))
            except Exception as error:  # whatever a pipeline raises that takes no batch
                if out_of_memory(error):
                    raise
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

    def _timed(self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int) -> Drawn:
        """Draw a batch in one call, after a short call of the same size that is not timed."""
        few = min(steps, WARM_STEPS)
        if (len(seeds), few) not in self._warm:
            begin = time.perf_counter()
            with finite(self.backend.nets, self.dtype):
                self._call(seeds, conditions, few)
            self._synchronize()
            self._warm.add((len(seeds), few))
            if self.compile:
                self.compiled_in += time.perf_counter() - begin
        with counted(self.backend.nets) as rows:
            begin = time.perf_counter()
            samples = self._call(seeds, conditions, steps)
            self._synchronize()
            seconds = time.perf_counter() - begin
        flags = self.backend.flagged or (False,) * len(samples)
        return Drawn(samples, sum(rows) / len(samples), seconds, flags)

    def _call(self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int) -> list[Any]:
        """Draw in one call; what a pipeline raises becomes a UserError, except for a lack of memory."""
        try:
            if len(seeds) == 1:
                return [self.backend.draw_one(seeds[0], conditions[0], steps)]
            return self.backend.draw_batch(seeds, conditions, steps)
        except UserError:
            raise
        except Exception as error:  # whatever a pipeline raises that does not like its call
            if out_of_memory(error):
                raise
            reason = one_line(error, 300)
            if self.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise UserError(f"The denoiser does not compile: {reason}", "Leave --compile away.") from error
            name = type(getattr(self.backend, "pipeline", self.backend)).__name__
            raise UserError(
                f"Stock diffusers refuses this call of {name}: {type(error).__name__}: {reason}",
                "Give --steps 2, and to --compare the teacher that the student came from.",
            ) from error

    def _within_memory(self, size: int, work: Callable[[], T]) -> T | None:
        """What `work` on `size` samples returns; None where memory does not suffice, and then `size` is halved."""
        try:
            return work()
        except Exception as error:
            if not out_of_memory(error):
                raise
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
