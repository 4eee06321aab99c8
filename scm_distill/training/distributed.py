"""Processes and devices: DDP, FSDP2, and what waits in host memory.

Accelerate starts the process group and wraps for DDP. FSDP2 is torch's own `fully_shard`, unit by unit the blocks of
the network: Accelerate has it for GPUs only, and its bf16 policy rounds the time, which makes the tangent half wrong.
"""

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from scm_distill import config
from scm_distill.autodiff.dual import blocks
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond, on_device, rows
from scm_distill.models.ema import PowerEMA
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.progress import Reporter

WAIT = timedelta(minutes=30)  # for the others in a collective; for what takes longer they wait by `ranks`


def accelerator_for(recipe: config.Recipe) -> Accelerator:
    """Accelerate for processes and devices only: precision and accumulation are ours, whatever its config file says."""
    accelerator = processes(cpu=recipe.train.device == "cpu")
    if accelerator.gradient_accumulation_steps != 1:
        raise UserError(
            "Accelerate's configuration asks for gradient accumulation.",
            "Set it to 1 there, and train.micro_batch_size in the recipe.",
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.train.tf32
    return accelerator


def processes(*, cpu: bool) -> Accelerator:
    """This process among those that a launcher started, on its GPU if there are any and `cpu` is not set."""
    # Without cpu=True, Accelerate on a machine without a GPU takes every torchrun worker for the only one.
    cpu = cpu or not torch.cuda.is_available()
    wait = InitProcessGroupKwargs(timeout=WAIT)
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[wait, ddp])


def units(network: Network, x: Tensor, t: Tensor, cond: Cond) -> list[str]:
    """Names of the blocks that FSDP2 may gather one by one: no part of them is called while the block is not.

    The network runs once, where its parameters are.
    """
    device = next(network.parameters()).device
    names = {module: name for name, module in network.net.named_modules()}
    running: list[nn.Module] = []
    strays: list[nn.Module] = []
    handles = []
    for block in blocks(network.net):
        handles += [
            block.register_forward_pre_hook(lambda m, _: running.append(m)),
            block.register_forward_hook(lambda _, __, ___: running.pop() and None),
        ]
        for part in block.modules():
            if part is not block:
                handles.append(
                    part.register_forward_pre_hook(
                        lambda _, __, block=block: strays.append(block) if block not in running else None
                    )
                )
    try:
        with torch.no_grad():
            network(x.to(device), t.to(device), on_device(cond, device))
    finally:
        for handle in handles:
            handle.remove()
    return [names[block] for block in blocks(network.net) if block not in strays]


def shard(modules: list[nn.Module], root: nn.Module, device: torch.device, world: int) -> nn.Module:
    """Share out the parameters of `root` in place: each of `modules` is gathered when it runs, and freed after it.

    In float32: autocast narrows the gathered weights, and no input, so the time stays exact. The hooks of `root` must
    see plain tensors, no pairs.
    """
    mesh = init_device_mesh(device.type, (world,))
    for unit in [*modules, root]:
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return root.to(device)


def replicate(accelerator: Accelerator, student: Student) -> nn.Module:
    """The student in DDP, or as it is in a single process."""
    wrapped: nn.Module = accelerator.prepare(student)
    if isinstance(wrapped, nn.parallel.DistributedDataParallel):
        wrapped.broadcast_buffers = False  # they are constants
    return wrapped


@dataclass(frozen=True)
class Distributed:
    """The student as its `forward` is called for training, and its EMA.

    `empty` are copies of student and teacher on the meta device where parameters are shared out between processes, to
    gather them into; None where every process has them all.
    """

    wrapped: nn.Module
    ema: PowerEMA[Student]
    empty: tuple[Network, Network] | None

    def gather(self, F_teacher: Network, device: torch.device, *, main: bool) -> tuple[Network, Network]:
        """The networks of the EMA student and of the teacher, all of them in the main process; a collective."""
        average = self.ema.module.network
        if self.empty is None:
            return average.to(device), F_teacher
        if isinstance(F_teacher, FSDPModule):
            F_teacher = gather_network(F_teacher, self.empty[1], device, main=main)
        return gather_network(average, self.empty[0], device, main=main), F_teacher


def place(
    accelerator: Accelerator,
    student: Student,
    F_teacher: Network,
    recipe: config.Recipe,
    x_t: Tensor,
    t: Tensor,
    cond: Cond,
    report: Reporter,
) -> Distributed:
    """Student and EMA on their devices, whole (in DDP where there are several processes) or shared out.

    `x_t`, `t` and `cond` are a sample or more, to see how the network runs.
    """
    settings, world = recipe.train, accelerator.num_processes
    one = (x_t[:1] / student.network.sigma_d, t[:1], rows(cond, slice(1)))
    if settings.shard == "off":
        student.to(accelerator.device)
        if world > 1 and (idle := freeze_idle(student, *one)):
            report.say(f"frozen, since F does not depend on them: {', '.join(idle)}")
        away = torch.device("cpu") if "ema" in settings.offload else None
        ema = PowerEMA(student, settings.ema_std, away, shared=away is None)
        return Distributed(replicate(accelerator, student), ema, None)
    empty = meta_copies(student.network, F_teacher)
    ema = PowerEMA(student, settings.ema_std, views=True)
    average, names = ema.module.network, units(student.network, *one)
    wrapped = shard(_parts(student.network, names), student, accelerator.device, world)
    shard(_parts(average, names), average, accelerator.device, world)
    if ema.module.weight is not None:  # it never runs, but must be laid out as the student's
        shard([], ema.module.weight, accelerator.device, world)
    return Distributed(wrapped, ema, empty)


def share_teacher(accelerator: Accelerator, F_teacher: Network, x_t: Tensor, t: Tensor, cond: Cond) -> None:
    """Share out the teacher's parameters between the processes, in place; x_t, t and cond as in `place`."""
    names = units(F_teacher, x_t[:1] / F_teacher.sigma_d, t[:1], rows(cond, slice(1)))
    shard(_parts(F_teacher, names), F_teacher, accelerator.device, accelerator.num_processes)


def _parts(network: Network, names: list[str]) -> list[nn.Module]:
    return [network.net.get_submodule(name) for name in names]


def freeze_idle(student: Student, x: Tensor, t: Tensor, cond: Cond) -> list[str]:
    """Freeze what has no part in F, for which DDP would wait in every step; the names."""
    F_theta, _, w_phi = student(x, t, cond)
    (F_theta.square().mean() + w_phi.sum()).backward()
    idle = [name for name, p in student.named_parameters() if p.grad is None and p.requires_grad]
    for p in student.parameters():
        p.requires_grad_(p.grad is not None)
        p.grad = None
    return idle


def accumulating(accelerator: Accelerator, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Around a backward: gradients are exchanged in the `last` one of a step only."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(last)
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(wrapped)


def without_exchange(wrapped: nn.Module) -> AbstractContextManager[Any]:
    """Around a forward and backward whose gradients stay in this process, where DDP would average them."""
    return wrapped.no_sync() if isinstance(wrapped, nn.parallel.DistributedDataParallel) else nullcontext()


def clip(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients to a norm of at most `limit`; the norm they had, without waiting for the device."""
    total = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
    return gather_tensor(total)


def min_over_ranks(accelerator: Accelerator, value: Tensor) -> Tensor:
    """The smallest of the values (1,) of all processes; on the host its share of each."""
    everywhere: Tensor = accelerator.gather(value)
    return everywhere.min() // (1 if accelerator.device.type == "cuda" else accelerator.num_processes)


def gather_tensor(x: Tensor) -> Tensor:
    """`x` with the parts that other processes have; a collective where it is a DTensor, else `x` as it is."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def local_part(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of `value`, laid out as `like`: all of it where `like` is no DTensor."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def meta_copies(student: Network, F_teacher: Network) -> tuple[Network, Network]:
    """Copies of both on the meta device, without weights; parameters that both share, the copies share too."""
    memo: dict[int, Any] = {}
    for p in (*student.parameters(), *F_teacher.parameters()):
        memo[id(p)] = nn.Parameter(p.detach().to("meta"), p.requires_grad)
    return copy.deepcopy((student, F_teacher), memo)


def gather_network(sharded: Network, empty: Network, device: torch.device, *, main: bool) -> Network:
    """The parameters of a `sharded` network, put into its copy `empty` of the meta device, in the main process.

    A collective. The other processes get `empty` as it was.
    """
    shares = dict(sharded.named_parameters())
    for name, meta in list(empty.named_parameters()):
        value = gather_tensor(shares[name].detach())
        if main:
            owner, _, leaf = name.rpartition(".")
            setattr(empty.get_submodule(owner), leaf, nn.Parameter(value.to(device), meta.requires_grad))
    return empty.to(device) if main else empty
