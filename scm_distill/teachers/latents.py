"""From pixels or sound to a teacher's latents and back, by the end of its own stock call; no family is named here.

L    a sample as the scheduler has it                              (B, ...)
D    the input of the VAE's decoder for it                         (B, ...), or (B * frames, ...)

D is the entries of L in another order, each scaled and shifted. This map is measured: the stock call is run with chosen
L after its last step, and the decoder's input is recorded. It is then inverted for real data.
"""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from scm_distill.errors import UserError, one_line
from scm_distill.memory import out_of_memory
from scm_distill.teachers import failures, safety, trace
from scm_distill.teachers.guidance import ids_of
from scm_distill.teachers.reading import Reading

BASE = 1024  # indices are probed in digits of this base, so that float32 holds them exactly


class Unmapped(Exception):
    """Why real data cannot be encoded, as a clause of a sentence."""


@dataclass
class LatentMap:
    """D = L[order] * scale + shift; `pixels` is the shape of a decoded batch of one sample."""

    vae: Any
    order: Tensor
    scale: Tensor
    shift: Tensor
    sample_shape: tuple[int, ...]
    pixels: tuple[int, ...]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """L (1, ...) of one sample in pixels or audio samples, of shape `pixels`, in [-1, 1]; the posterior's mode.

        Raises UserError where encoder and decoder do not fit each other, as when frames do not divide.
        """
        out = self.vae.encode(x)
        E = out.latent_dist.mode() if hasattr(out, "latent_dist") else out[0]
        if E.shape != self.scale.shape:
            raise UserError(
                f"The teacher's VAE encodes to {tuple(E.shape)} and decodes from {tuple(self.scale.shape)}.",
                "Choose another size or length in teacher.call, or set data.source=teacher.",
            )
        L = torch.empty(self.order.numel(), dtype=E.dtype, device=E.device)
        L[self.order.flatten()] = ((E - self.shift) / self.scale).flatten()
        return L.reshape(1, *self.sample_shape)


def latent_map(reading: Reading) -> LatentMap:
    """Measure the map of a teacher. Raises UserError where D is not the entries of L, scaled and shifted."""
    pipeline = reading.stock.pipeline
    name, fix = type(pipeline).__name__, "Set data.source=teacher: the teacher's own samples need no encoder."
    with failures.told(name, "cannot encode real data", pipeline.components, fix):
        try:
            return _measure(reading)
        except Unmapped as error:
            raise UserError(f"{name} cannot encode real data: {error}.", fix) from error


@torch.no_grad()
def _measure(reading: Reading) -> LatentMap:
    """As `latent_map`. Raises Unmapped."""
    pipeline, shape = reading.stock.pipeline, reading.convention.sample_shape
    vae = next((v for n in ("vae", "vqvae") if isinstance(v := getattr(pipeline, n, None), nn.Module)), None)
    if vae is None or not hasattr(vae, "encode"):
        raise Unmapped("it has no VAE with an encoder")
    device = next(vae.parameters()).device
    n = torch.Size(shape).numel()

    def decoder_input(L: Tensor) -> Tensor:
        return _decoder_input(reading, vae, L.reshape(1, *shape).to(device)).double()

    shift = decoder_input(torch.zeros(n))
    scale = decoder_input(torch.ones(n)) - shift
    if shift.numel() != n or (scale == 0).any():
        raise Unmapped(f"its decoder is given {tuple(shift.shape)} at first for a sample of {shape}")
    index = torch.arange(n)
    digits = [((decoder_input(d.float()) - shift) / scale).round().long() for d in (index % BASE, index // BASE)]
    order = digits[0] + BASE * digits[1]
    if not torch.equal(order.flatten().sort().values.cpu(), index):
        raise Unmapped("its decoder's input is not made of the latents one by one")
    probe = torch.randn(n, generator=torch.Generator().manual_seed(0))
    D = decoder_input(probe)
    if not (probe.to(D)[order.flatten()].reshape(D.shape) * scale + shift - D).abs().max() <= 1e-4 * D.abs().max():
        raise Unmapped("its decoder's input is not proportional to the latents")
    decoded = cast(Any, vae).decode(shift.to(next(vae.parameters()).dtype))[0]
    return LatentMap(vae, order, scale.float(), shift.float(), shape, tuple(decoded.shape))


def _decoder_input(reading: Reading, vae: nn.Module, L: Tensor) -> Tensor:
    """The first input of the VAE's decoder when the stock call ends on L (1, ...). Raises Unmapped."""
    inputs: list[Tensor] = []

    def record(z: Tensor, *_: Any, **__: Any) -> Any:
        inputs.append(z.clone())
        raise trace.Stopped

    stock = reading.stock
    untyped: Any = vae
    with trace.patched(vae, "decode", functools.wraps(untyped.decode)(record)):
        stock.watch(stock.arguments(ids_of(stock), 2, scale=reading.off), fake=True, replace=L)
    if not inputs:
        raise Unmapped("its call ends without decoding")
    return inputs[0]


class Decoder:
    """Decodes latents as the pipeline does, by the end of its stock call, without its text encoders in memory.

    The results of `encode_prompt` for a probe prompt are recorded and returned again, so that the call runs without
    the encoders. `flagged` says of each sample since it was last emptied whether the safety checker flagged it.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.flagged: list[bool] = []
        self.answers: list[Any] = []
        pipeline = reading.stock.pipeline
        if not hasattr(pipeline, "encode_prompt"):
            return
        encode = pipeline.encode_prompt

        @functools.wraps(encode)
        def keep(*args: Any, **kwargs: Any) -> Any:
            self.answers.append(encode(*args, **kwargs))
            return self.answers[-1]

        with trace.patched(pipeline, "encode_prompt", keep):
            self._run(None)

    def drop_encoders(self) -> list[str]:
        """Remove the text encoders from the pipeline; their names. Nothing is removed where the call needs them."""
        pipeline = self.reading.stock.pipeline
        held = {
            n: v for n, v in pipeline.components.items() if n.startswith("text_encoder") and isinstance(v, nn.Module)
        }
        for name in held:
            setattr(pipeline, name, None)
        try:
            self._run(None)
        except Exception as error:  # whatever a pipeline does that finds a part gone
            for name, part in held.items():
                setattr(pipeline, name, part)
            if out_of_memory(error):
                raise
            return []
        return list(held)

    def __call__(self, latents: Tensor) -> list[Any]:
        """The decoded samples of `latents` (B, ...), one entry each.

        An entry is a PIL image, a list of PIL images or an array of frames, or an array of audio samples.
        """
        try:
            return [self._run(L[None]) for L in latents]
        except Exception as error:  # whatever its decoder or safety checker raises
            if out_of_memory(error) or isinstance(error, UserError):
                raise
            name, reason = type(self.reading.stock.pipeline).__name__, one_line(error, 200)
            raise UserError(
                f"{name} cannot show its samples: its stock call ends with {type(error).__name__}: {reason}.",
                "What decodes and checks them (vae, safety_checker, feature_extractor) must work first.",
            ) from error

    def check(self) -> None:
        """Decode a sample of zeros, so that a part that cannot is known early. Raises UserError."""
        self(torch.zeros(1, *self.reading.convention.sample_shape))
        self.flagged.clear()

    def _run(self, L: Tensor | None) -> Any:
        """The stock call's sample for the latents L (1, ...); for None its first step only, and no result."""
        reading, answers = self.reading, list(self.answers)

        def replay(*_: Any, **__: Any) -> Any:
            return answers.pop(0)

        stock = reading.stock
        arguments = stock.arguments(ids_of(stock), 2, scale=reading.off)
        with contextlib.ExitStack() as stack:
            if answers:
                signature_of = functools.wraps(stock.pipeline.encode_prompt)
                stack.enter_context(trace.patched(stock.pipeline, "encode_prompt", signature_of(replay)))
            if L is None:
                stock.watch(arguments, fake=True, steps=1)
                return None
            result = stock.watch(arguments, fake=True, replace=L).result
        self.flagged += safety.flagged(stock.pipeline, result)[:1]
        return result[0][0]
