"""A student that is shared out: what each of two processes holds on the way, and that the parts are the whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_ranks import by_two

from scm_distill import config
from scm_distill.models.ema import PowerEMA
from scm_distill.models.low_pass import filters
from scm_distill.progress import Silent
from scm_distill.training import networks
from scm_distill.training.student import new_student


def test_views_of_a_module_are_no_copies() -> None:
    module = torch.nn.Linear(2, 2)
    ema = PowerEMA(module, 0.1, views=True)
    assert ema.module.weight.data_ptr() == module.weight.data_ptr()
    assert not ema.module.weight.requires_grad
    assert module.weight.requires_grad


@pytest.mark.parametrize("overrides", [(), ("lora.rank=2",)])
def test_a_student_of_views_is_the_student(make_teacher: Any, recipe_of: Any, tmp_path: Path, overrides: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of(make_teacher()))
    recipe = config.read(str(tmp_path / "recipe.yaml"), overrides)
    loaded = networks.load_teacher(recipe)
    x, t = torch.randn(2, *loaded.teacher.sample_shape), torch.tensor([0.4, 1.1], dtype=torch.float64)
    copied, viewed = (new_student(loaded, recipe, x, t, {}, Silent(), views=views) for views in (False, True))
    before = {p.data_ptr() for p in loaded.F_teacher.parameters()}
    assert {p.data_ptr() for p in viewed.parameters() if not recipe.lora.rank or not p.requires_grad} == before
    flags = [[p.requires_grad for p in network.parameters()] for network in (copied, viewed)]
    assert flags[0] == flags[1]
    assert not any(p.requires_grad for p in loaded.F_teacher.parameters())
    with torch.no_grad():
        assert torch.equal(copied(x, t, {}), viewed(x, t, {}))
    assert len(filters(viewed.net)) == len(filters(copied.net))


SHARDED = """
import gc
from types import SimpleNamespace as Named
from accelerate import Accelerator
from torch import nn
from training.test_derivative import BAR
from scm_distill import config
from scm_distill.maths.clocks import DiscreteSchedule
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.progress import Silent
from scm_distill.teachers.families import Family
from scm_distill.training import distributed
from scm_distill.training.student import new_student

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(255, 255) for _ in range(8))

    def forward(self, x, k, *, return_dict):
        for part in self.parts:
            x = x + part(x).tanh() * k[:, None] / 1000
        return (x,)

def held():
    tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor) and not hasattr(x, "device_mesh")]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors if not x.is_meta}
    return sum(storages.values()) - start

def watched(*args, **kwargs):
    found["peak"] = max(found["peak"], held() / whole)
    fully_shard(*args, **kwargs)
    found["peak"] = max(found["peak"], held() / whole)

fully_shard, distributed.fully_shard = distributed.fully_shard, watched
start, found["peak"] = 0, 0.0
start = held()
torch.manual_seed(0)
F_teacher = Network(Wide(), DiscreteSchedule(BAR, 1.0), "v_prediction", 1.0).requires_grad_(False)
weights = {name: p.clone() for name, p in F_teacher.named_parameters()}
whole = sum(p.nbytes for p in F_teacher.parameters())
start += whole  # of these copies
recipe = config.read("recipe.yaml", ["train.shard=all", "train.batch_size=2"])
x, t = torch.randn(2, 255), torch.tensor([0.4, 1.1], dtype=torch.float64)
loaded = Named(teacher=Named(family=Family(), convention=None), F_teacher=F_teacher, t_max=1.5)
accelerator = Accelerator(cpu=True)
student = Student(new_student(loaded, recipe, x, t, {}, Silent(), views=True), adaptive=True)
placed = distributed.place(accelerator, student, F_teacher, recipe, x, t, {}, Silent())
del loaded
found["the student and its average shared out"] = held() / whole
distributed.share_teacher(accelerator, F_teacher, x, t, {})
gc.collect()
found["all shared out"] = held() / whole
with torch.no_grad():
    for p in student.parameters():
        p.add_(1.0)
averages, F = placed.gather(F_teacher, torch.device("cpu"), main=rank == 0)
if rank == 0:
    for kind, network in ("ema", averages), ("teacher", F):
        found[kind] = max(float((p - weights[name]).abs().max()) for name, p in network.named_parameters())
moved = {name: distributed.gather_tensor(p.detach()) for name, p in student.network.named_parameters()}
found["student"] = max(float((p - 1 - weights[name]).abs().max()) for name, p in moved.items())
"""


@pytest.mark.wide  # two processes that import diffusers
def test_no_process_holds_a_second_copy_of_the_weights(tmp_path: Path, recipe_of: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of("teacher"))
    both = by_two(SHARDED, tmp_path)
    for found in both:
        assert 1.5 < found["peak"] < 2.1  # teacher 1, student and average 1/2 each; copies were 3 of it
        assert 1.9 < found["the student and its average shared out"] < 2.1
        assert 1.4 < found["all shared out"] < 1.6
        assert found["student"] < 1e-6
    assert both[0]["ema"] == both[0]["teacher"] == 0
