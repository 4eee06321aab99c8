"""The card: its snippets run in an interpreter without this package, its front matter is the Hub's, prose is kept."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from conftest import TeacherMaker
from hub_rules import front, obeys_the_hub
from PIL import Image

from scm_distill import config, teachers
from scm_distill.artifacts import layout
from scm_distill.artifacts.export_record import Distance, Searched
from scm_distill.export import bundle, t_mid
from scm_distill.progress import Silent
from scm_distill.publish import card
from scm_distill.sampling import pixel_student
from scm_distill.sampling.stock_loop import seeded_noise
from scm_distill.training import networks
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.latents import TrainingData
from scm_distill.training.run import Trained
from scm_distill.training.student import new_student

pytestmark = pytest.mark.filterwarnings("ignore")

TOKEN = "hf_" + "plantedplantedplantedplantedplanted"
PROMPTS = ['a "quoted" cat, `ticks`', "ein Füchslein: 雪"]
TABLE = (
    Distance(sampler="teacher, DDIM", nfe=50, distance=0.22),
    Distance(sampler="student", nfe=1, distance=0.39),
    Distance(sampler="student", nfe=2, distance=0.25),
)


@dataclass(frozen=True)
class Export:
    """A folder, the teacher that it is of, and its call."""

    folder: Path
    teacher: Path
    call: dict[str, Any]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, make_teacher: TeacherMaker) -> dict[str, Export]:
    """Undistilled teachers, exported as if they were students, while a token is in the environment."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        for name in ("pixels", "classes", "sd15"):
            home = tmp_path_factory.mktemp("secret-home") / f"my-{name}"
            if name == "sd15":
                zoo.load_all()[name].pipeline().save_pretrained(str(home))
            else:
                kind = {} if name == "pixels" else {"classes": 3, "channels": 3}
                shutil.copytree(make_teacher(**kind), home)
            (home / "README.md").write_text("---\nlicense: apache-2.0\n---\nThe teacher.\n")
            (home / "LICENSE.txt").write_text("Apache License\n")
            made[name] = _export(home, home.with_name("export"))
    return made


def _export(teacher: Path, out: Path) -> Export:
    recipe = config.parse(
        {
            "teacher": {"repo": str(teacher), "call": {"height": 32, "width": 32} if "sd15" in teacher.name else {}},
            "data": {"source": "teacher"},
            "train": {"steps": 1, "batch_size": 1},
            "export": {"t_mid": [1.1]},
        }
    )
    parts = networks.load_teacher(recipe)
    reading, conditions = parts.teacher.reading, None
    if reading is not None:
        conditions = teachers.record(
            reading, PROMPTS, out.with_name("conditions"), guided=False, negative="", identity=""
        )
    given = Conditioning(parts.teacher, conditions, recipe.guidance)
    x = torch.randn(2, *parts.teacher.sample_shape, generator=torch.Generator().manual_seed(0))
    cond = given.for_evaluation(torch.zeros(2, dtype=torch.long))
    network = new_student(parts, recipe, x, torch.tensor([0.3, 1.2]), cond, Silent()).requires_grad_(False)
    trained = Trained(recipe, parts, TrainingData((), given, None, PROMPTS if reading else []), network, 7)  # type: ignore[arg-type]
    grid = t_mid.grids(trained)[0]
    call, _ = bundle.fill(out, trained, grid, TABLE, (Searched(t_mid=grid.t_mid, distance=0.25),), Silent())
    card.write(out)
    return Export(out, teacher, call)


BLOCK = """
import sys, warnings
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "scm_distill":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
warnings.simplefilter("ignore")
import numpy as np, torch
torch.set_num_threads(1)
"""


def test_every_snippet_draws_the_gallery_where_this_package_cannot_be_imported(
    exports: dict[str, Export], tmp_path: Path
) -> None:
    code = BLOCK
    for name, export in exports.items():
        found = re.search(r"```python\n(.*?)```", (export.folder / "README.md").read_text(), re.DOTALL)[1]
        code += found.replace("path/to/this/folder", str(export.folder))
        result = "samples" if name == "sd15" else "images"
        code += f"\nnp.save({str(tmp_path / name)!r}, np.stack([np.asarray(x) for x in {result}]))\n"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, export in exports.items():
        theirs = np.load(tmp_path / f"{name}.npy").astype(float)
        assert theirs.std() > 5
        shown = json.loads((export.folder / layout.FACTS).read_text())["facts"]["gallery"]
        for image, one in zip(theirs, shown, strict=False):
            step = one["magnified"]
            picture = np.asarray(Image.open(export.folder / one["file"]), dtype=float)[::step, ::step]
            assert np.abs(picture - image).max() <= 1
        if name != "sd15":  # of which the self-check is the comparison with our own sampler
            cond = {} if name == "pixels" else {"class_labels": torch.tensor([0, 1, 2, 0])}
            read = pixel_student.load(str(export.folder))
            eps = seeded_noise(range(4), read.pipeline.sample_shape, 2)
            x_0 = pixel_student.as_stock_does(read.network, eps, read.times(2), cond)
            mine = x_0.detach().clamp(-1, 1).permute(0, 2, 3, 1)
            assert np.abs(theirs.reshape(mine.shape) - (mine.numpy() + 1) * 127.5).max() <= 0.51
    assert len(json.loads((exports["classes"].folder / layout.FACTS).read_text())["facts"]["gallery"]) == 8


def test_no_path_and_no_token_is_in_an_export(exports: dict[str, Export]) -> None:
    for export in exports.values():
        text = (export.folder / "README.md").read_text()
        assert f"`{export.teacher.name}`" in text
        assert "base_model" not in front(text)
        for file in export.folder.rglob("*"):
            held = file.read_bytes() if file.is_file() else b""
            for secret in (str(export.teacher.parent), str(Path.home()) + "/", TOKEN):
                assert secret.encode() not in held, file


def test_the_front_matter_of_an_export_is_the_hubs(exports: dict[str, Export]) -> None:
    for name, export in exports.items():
        data = front((export.folder / "README.md").read_text())
        obeys_the_hub(data)
        assert list(data) == [key for key in card.KEYS if key in data]
        assert data["license"] == "apache-2.0"
        assert data["pipeline_tag"] == ("text-to-image" if name == "sd15" else "unconditional-image-generation")
        assert (export.folder / "LICENSE.txt").read_text() == "Apache License\n"
    assert [one["text"] for one in front((exports["sd15"].folder / "README.md").read_text())["widget"]] == PROMPTS
    assert front((exports["classes"].folder / "README.md").read_text())["widget"][4]["text"] == "class 1"
