"""Pre-fit: plain regression of the student's new output onto the teacher's F, before consistency training starts.

An epsilon network is a badly conditioned one-step student near t = pi/2 (its error in x_0 is tan t times larger); a
network that predicts v is not, but its last layers must first learn to.
"""

import math
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scm_distill import config, ranks
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.maths.trigflow import diffuse
from scm_distill.models.network import Network
from scm_distill.progress import Reporter
from scm_distill.training.batches import Batch, BatchSource, to_device
from scm_distill.training.distributed import accumulating, clip

FINAL_LR = 0.1  # share of the learning rate left at the last step
LOSS_EVERY = 20  # steps between readings of the loss, for each of which the host waits for the device


def relative_error(student: nn.Module, F_teacher: Network, x_t: Tensor, t: Tensor, cond: Cond) -> float:
    """rms(F - F_teacher) / rms(F_teacher) on x_t (B, ...), t (B,), of a student as it is wrapped for training."""
    x = x_t / F_teacher.sigma_d
    with torch.no_grad():
        target = F_teacher(x, t, cond)
        error = student(x, t, cond)[0] - target
    return float((error.square().mean() / target.square().mean()).sqrt())


def fit(
    accelerator: Accelerator,
    student: nn.Module,
    F_teacher: Network,
    steps: Iterator[list[Batch]],
    *,
    total: int,
    lr: float,
    report: Reporter,
) -> None:
    """Take `total` Adam steps on E || F_theta - F_teacher ||^2, in place; `steps` yields the micro-batches of each.

    The learning rate falls linearly from `lr` to FINAL_LR of it. Raises UserError where the loss is not finite.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr)
    report.begin("pre-fit", total)
    for step in range(total):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - (1 - FINAL_LR) * step / total)
        micro_batches = next(steps)
        total_loss = torch.zeros((), device=accelerator.device)
        for i, batch in enumerate(micro_batches):
            x_0, z, t, cond = to_device(batch, accelerator.device)
            x = diffuse(x_0, z, t.to(x_0.dtype)) / F_teacher.sigma_d
            with torch.no_grad(), F_teacher.knowing(batch[2]):
                target = F_teacher(x, t, cond)
            with accumulating(accelerator, student, last=i == len(micro_batches) - 1):
                F_theta, _, w_phi = student(x, t, cond)
                loss = (F_theta - target).square().mean() / len(micro_batches)
                (loss + 0 * w_phi.sum()).backward()  # w_phi takes part, or DDP waits for its gradient
            total_loss += loss.detach()
        clip(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % LOSS_EVERY == 0 or step + 1 == total:
            value = ranks.largest("the pre-fit", float(total_loss))
            if not math.isfinite(value):
                raise UserError(f"The pre-fit loss is {value} at step {step}.", "Lower adapt.prefit_lr.", code=1)
            report.advance(step + 1, {"loss": value})
    report.end()


def run(
    recipe: config.Recipe,
    accelerator: Accelerator,
    student: nn.Module,
    F_teacher: Network,
    batches: BatchSource,
    probe: tuple[Tensor, Tensor, Cond],
    report: Reporter,
) -> None:
    """Fit the `student`, as it is wrapped for training, as the recipe says, and say what that did to F on a probe."""
    settings = recipe.adapt
    before = relative_error(student, F_teacher, *probe)
    steps = batches.steps("pre-fit", recipe.train.seed + 1, 0)
    fit(
        accelerator, student, F_teacher, steps, total=settings.prefit_steps, lr=settings.prefit_lr, report=report
    )  # fmt: skip
    after = relative_error(student, F_teacher, *probe)
    report.say(f"pre-fit to v prediction: relative error of F {before:.3g} -> {after:.3g}")
