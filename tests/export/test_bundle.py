"""An exported folder, run by an interpreter that cannot import this package, equals our own sampler."""

import functools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TeacherMaker, tiny_net, wide
from safetensors import safe_open

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.evaluation.metrics import block_features, frechet
from scm_distill.export import bundle, t_mid
from scm_distill.export.schedulers import Grid
from scm_distill.models import reclock
from scm_distill.progress import Silent
from scm_distill.sampling import pixel_student
from scm_distill.sampling.stock_loop import seeded_noise
from scm_distill.training import run, setup

Exporter = Callable[..., tuple[run.Trained, bundle.Exported]]

BLOCK = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "scm_distill":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def export(
    tmp_path_factory: pytest.TempPathFactory,
    make_teacher: TeacherMaker,
    recipe_of: Callable[..., str],
    image_folder: Path,
) -> Exporter:
    @functools.cache
    def go(*overrides: str, **teacher: object) -> tuple[run.Trained, bundle.Exported]:
        tmp_path = tmp_path_factory.mktemp("export")
        path, out = tmp_path / "recipe.yaml", tmp_path / "run"
        data = image_folder if "classes" in teacher else "builtin:digits/data.npz"
        path.write_text(recipe_of(make_teacher(**teacher), data))
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(parents=True, exist_ok=True)
        recipe = config.read(str(path), overrides)
        (out / "config.yaml").write_text(config.dump(recipe))
        trained = run.Run(setup.build(recipe, out, None, Silent())).train()
        return trained, bundle.write(trained, out / "export", Silent())

    return go


def stock(codes: dict[Path, str]) -> list[np.ndarray]:
    """Run snippets in an interpreter without scm_distill; each leaves `images` (N, H, W, C)."""
    script = BLOCK + "import numpy as np\n"
    for folder, code in codes.items():
        script += f"known = {{}}\nexec({code.replace('path/to/this/folder', str(folder))!r}, known)\n"
        script += f"np.save({str(folder / 'stock.npy')!r}, np.asarray(known['images']))\n"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [np.load(folder / "stock.npy") for folder in codes]


def card_snippet(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


@torch.no_grad()
def ours(folder: Path, cond: dict[str, torch.Tensor]) -> torch.Tensor:
    """x_0 of seeds 0 to 3 by our own two steps."""
    read = pixel_student.load(str(folder))
    eps = seeded_noise(range(4), read.pipeline.sample_shape, 2)
    return pixel_student.as_stock_does(read.network, eps, read.times(2), cond)


KINDS: dict[str, list[tuple[tuple[str, ...], dict[str, object]]]] = {
    "plain": [((), {})],
    "others": [
        (("objective.sigma_d=0.5",), {}),
        (("adapt.reclock=false",), {}),
        (("adapt.output=keep",), {"prediction": "sample", "channels": 3}),
    ],
}


@pytest.mark.parametrize("kind", ["plain", *wide("others")])
def test_the_cards_snippets_give_our_samples(kind: str, export: Exporter) -> None:
    made = [export(*overrides, **teacher) for overrides, teacher in KINDS[kind]]
    classes = export(classes=3, channels=3)[1]
    plain = {
        done.folder: card_snippet(done.folder).replace(
            "generator=generators)", "generator=generators, output_type='np')"
        )
        for _, done in made
    }
    *images, labelled = stock(plain | {classes.folder: card_snippet(classes.folder)})
    for (trained, exported), theirs in zip(made, images, strict=True):
        mine = ours(exported.folder, {})
        assert (torch.from_numpy(theirs).permute(0, 3, 1, 2) * 2 - 1 - mine.clamp(-1, 1)).abs().max() <= 1e-4
        assert mine.std() > 0.1
        assert exported.difference <= 1e-4
        assert trained.recipe.objective.sigma_d in (0.5, 1.0)
    mine = ours(classes.folder, {"class_labels": torch.tensor([0, 1, 2, 0])})
    expected = ((mine.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(labelled.astype(float) - expected).max() <= 0.51  # 8-bit


def test_the_sampler_is_the_trained_student_at_the_chosen_times(export: Exporter) -> None:
    """Re-clocking and folding lose nothing: the export's two steps are the EMA student's own."""
    trained, exported = export()
    read = pixel_student.load(str(exported.folder))
    assert read.times(2) == pytest.approx((exported.t_max, exported.t_mid), abs=1e-5)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([exported.t_mid, exported.t_max], dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(read.network(x, t, {}), trained.student(x, t, {}), atol=1e-4)


def test_an_export_says_what_it_is(export: Exporter) -> None:
    trained, exported = export()
    with safe_open(exported.folder / "student.safetensors", "pt") as file:
        facts = file.metadata()
        assert set(file.keys()) == set(tiny_net().state_dict())
    assert float(facts["t_mid"]) == exported.t_mid
    assert (facts["steps"], facts["prediction_type"], facts["sigma_d"]) == ("2", "v_prediction", "1.0")
    assert facts["base_model"] == trained.loaded.teacher.name
    search = json.loads((exported.folder / "t_mid_search.json").read_text())
    assert [row["t_mid"] for row in search["search"]] == [0.8, 1.1]
    assert search["chosen"] == min(search["search"], key=lambda row: row["distance"])["t_mid"]
    text = (exported.folder / "README.md").read_text()
    assert str(exported.folder.parent) not in text
    assert str(Path(trained.loaded.teacher.source.repo).parent) not in text


def test_more_and_fewer_steps_work_and_too_many_are_refused(export: Exporter) -> None:
    _, exported = export()
    read = pixel_student.load(str(exported.folder))
    for steps in (1, 3, 8):
        assert len(read.times(steps)) == steps
        eps = seeded_noise([0], read.pipeline.sample_shape, steps)
        assert pixel_student.as_stock_does(read.network, eps, read.times(steps), {}).isfinite().all()
    with pytest.raises(UserError, match="1 to 8 steps"):
        read.times(9)


def test_an_export_that_differs_is_an_error_and_leaves_the_old_one(
    export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, exported = export()
    before = sorted(p.name for p in exported.folder.iterdir())
    original = reclock.reclock

    def off(*args: object) -> object:
        network, error = original(*args)
        network.net.time_embedding.linear_1.weight.data *= 1.05  # a fold gone wrong
        return network, error

    monkeypatch.setattr(reclock, "reclock", off)
    with pytest.raises(UserError, match="differs"):
        bundle.write(trained, exported.folder, Silent())
    assert sorted(p.name for p in exported.folder.iterdir()) == before
    assert not list(exported.folder.parent.glob(".writing*"))


class Chosen(Exception):
    """Raised with the grid that would be exported, before anything is written."""


@pytest.mark.parametrize(
    ("distances", "best"),
    [((1, 2, 3), 0), ((3, 1, 2), 1), ((3, 2, 1), 2), ((math.inf, 5, 4), 2), ((math.inf, 5, math.inf), 1),
     ((4, math.inf, 5), 0)],
)  # fmt: skip
def test_the_grid_with_the_smallest_distance_is_exported(
    export: Exporter, distances: tuple[float, ...], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, exported = export()
    grids = [Grid(1.5, t_mid) for t_mid in (0.7, 0.9, 1.2)]
    by_time = {(grid.t_max, grid.t_mid): float(d) for grid, d in zip(grids, distances, strict=True)}

    def fill(folder: object, trained: object, best: Grid, table: object, search: object, *_: object):
        raise Chosen(best, search)

    monkeypatch.setattr(bundle, "grids", lambda trained: grids)
    monkeypatch.setattr(bundle, "distance_to_data", lambda network, reference, eps, cond, times: by_time[times])
    monkeypatch.setattr(bundle, "distance_table", lambda *args: ())
    monkeypatch.setattr(bundle, "fill", fill)
    with pytest.raises(Chosen) as caught:
        bundle.write(trained, exported.folder, Silent())
    chosen, search = caught.value.args
    assert chosen == grids[best]
    assert [(row.t_mid, row.distance) for row in search] == [(t[1], d) for t, d in by_time.items()]


def test_samples_that_are_not_finite_are_infinitely_far(export: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, _ = export()
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    reference = block_features(torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    for sampled, finite in ((x, True), (x / 0, False), (torch.full_like(x, math.nan), False)):
        monkeypatch.setattr(t_mid, "sample", lambda *args, sampled=sampled: sampled)
        distance = t_mid.distance_to_data(trained.student, reference, x[None], {}, (1.5, 1.1))
        assert distance == (pytest.approx(frechet(reference, block_features(x))) if finite else math.inf)


def test_what_is_no_student_is_refused(make_teacher: TeacherMaker, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no few-step student"):
        pixel_student.load(str(make_teacher()))
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match="no export yet"):
        pixel_student.load(str(tmp_path))
