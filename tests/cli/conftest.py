"""Run folders as `train` leaves them, without the training."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zoo
from diffusers import DDIMScheduler, DDPMPipeline
from hub import student

from scm_distill.export import schedulers
from scm_distill.export.schedulers import Grid

FACTS = {  # as far as `sample` and `eval` go; the rest is of a run that never was
    **student.FACTS, "hub_id": None, "reference": 8, "trained": {**student.FACTS["trained"], "teacher_call": {}},
}  # fmt: skip

Made = Callable[[str], Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run folder with an export in it and its teacher beside it, as after a training that changed nothing."""

    @functools.cache
    def make(name: str) -> Path:
        family, folder = zoo.load_all()[name], tmp_path_factory.mktemp(name)
        pipe = family.pipeline()
        pipe.save_pretrained(folder / "teacher")
        call = {"num_inference_steps": 2, **family.call}
        if name == "wan":
            pipe.scheduler = schedulers.flow(pipe.scheduler, Grid(1.5, 1.1), 1.0, in_call=False)
            call["guidance_scale"] = 1.0
        elif name != "stable_audio":
            bar = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
            pipe.scheduler = schedulers.discrete(bar, "v_prediction" if name == "ddpm" else "epsilon", 8)
            call |= {"guidance_scale": 0.0} if name == "sd15" else {}
        if name == "ddpm":
            pipe = DDPMPipeline(pipe.unet, pipe.scheduler)
        pipe.save_pretrained(folder / "export")
        (folder / "export" / "scm_distill.json").write_text(
            json.dumps({"version": 1, "call": call, "lora": None, "facts": FACTS})
        )
        recipe = {
            "teacher": {"repo": str(folder / "teacher")},
            "data": {"source": "teacher"},
            "train": {"steps": 1, "batch_size": 8},
        }
        (folder / "config.yaml").write_text(json.dumps(recipe))
        return folder

    return make
