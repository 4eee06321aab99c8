"""Every family through the real CLI: inspect, three training steps, export; then stock diffusers, in another process.

A family is a tiny pipeline of diffusers' own classes, from tests/zoo. Nothing here depends on which one it is but the
tables of exceptions, each with its reason.
"""

import json
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import zoo
from PIL import Image
from typer.testing import CliRunner
from whole_way import another_interpreter, goes_the_whole_way

from scm_distill.cli.app import app
from scm_distill.teachers.pipeline_class import LOADS_EXPORTS

FAMILIES = zoo.load_all()
REFUSED = {name: FAMILIES.pop(name) for name in ("longcat_audio",)}  # see the last test
# Where a central difference is a poor measure of the JVP, and why.
TANGENT = {
    "kandinsky5": (5e-2, "its rotary embedding is rounded to bf16, so differences see steps"),
}
UNGUIDED = {"ddpm", "ddim", "hunyuanimage", "ace_step"}
SIGMA_D = {"playground": 0.5}

started = pytest.fixture(scope="module", name="stock")(another_interpreter)
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of forty pipelines


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, tmp_path: Path, stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    family.pipeline().save_pretrained(str(tmp_path / "teacher"))
    goes_the_whole_way(
        tmp_path / "teacher",
        family.conditions,
        family.call,
        stock,
        monkeypatch,
        guidance="{}" if name in UNGUIDED else "{scale: 3.0}",
        sigma_d=SIGMA_D.get(name, 1.0),
        tangent=TANGENT.get(name, (1e-6, ""))[0],
    )
    from_an_image(tmp_path / "run" / "export", family.call)


def from_an_image(export: Path, call: dict[str, Any]) -> None:
    """Run the export in the image-to-image and inpainting classes that refusals send it to, where there are some."""
    text = json.loads((export / "model_index.json").read_text())["_class_name"].removesuffix("Pipeline")
    for name in LOADS_EXPORTS:
        if name not in (f"{text}Img2ImgPipeline", f"{text}InpaintPipeline"):
            continue
        pipeline = getattr(diffusers, name).from_pretrained(export)
        width, height = call.get("width", 16), call.get("height", 16)
        mask = {"mask_image": Image.new("L", (width, height), 255)} if "Inpaint" in name else {}
        picture = pipeline(
            **{key: value for key, value in call.items() if key in signature(pipeline.__call__).parameters},
            **mask,
            prompt="a cat",
            image=Image.new("RGB", (width, height), (200, 30, 30)),
            num_inference_steps=2,
            strength=0.6,
            output_type="np",
        )[0]
        assert picture.shape == (1, height, width, 3)
        assert np.isfinite(picture).all()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("longcat_audio", "brings its own scheduler along"),
    ],
)
def test_what_cannot_be_read_or_exported_is_refused_in_a_sentence(name: str, why: str, tmp_path: Path) -> None:
    REFUSED[name].pipeline().save_pretrained(str(tmp_path))
    call = json.dumps(REFUSED[name].call)
    done = CliRunner().invoke(app, ["inspect", str(tmp_path), "-s", f"teacher.call={call}"])
    assert done.exit_code == 2
    assert why in " ".join(done.stderr.split())


def test_the_zoo_is_large_enough() -> None:
    assert len(FAMILIES) >= 24
    assert sum(family.modality == "video" for family in FAMILIES.values()) >= 4
    assert sum(family.modality == "audio" for family in FAMILIES.values()) >= 2
