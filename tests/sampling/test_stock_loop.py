"""The sampling loops of pixel UNets by stock schedulers."""

import pytest
import torch
from conftest import tiny_net
from diffusers import DDIMScheduler, HeunDiscreteScheduler

from scm_distill.sampling import stock_loop


@pytest.mark.filterwarnings("ignore")  # diffusers' own, of NumPy
def test_the_baseline_runs_by_the_teachers_own_betas_also_where_they_are_its_classs_defaults() -> None:
    net, eps = tiny_net(), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    defaults = HeunDiscreteScheduler()  # 0.00085 to 0.012, unclipped: DDIM has other defaults
    named = DDIMScheduler(beta_start=0.00085, beta_end=0.012, timestep_spacing="linspace", clip_sample=False)
    expected = stock_loop.loop(net, named, eps, {}, 5)
    assert torch.equal(stock_loop.ddim(net, defaults, eps, {}, 5), expected)
    assert not torch.allclose(stock_loop.ddim(net, DDIMScheduler(), eps, {}, 5), expected, atol=1e-2)
