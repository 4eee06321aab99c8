"""What cannot be exported is known before anything is drawn, at the cost of no second copy of a network."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from conftest import wide
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel, WanPipeline, WanTransformer3DModel

from scm_distill import config, plan_train, train
from scm_distill.artifacts import files
from scm_distill.errors import UserError
from scm_distill.export import rehearsal
from scm_distill.progress import Silent
from scm_distill.teachers.families import stable_diffusion
from scm_distill.training import latents, networks
from scm_distill.training.memory.trace import AllocationTracker
from scm_distill.training.networks import LoadedTeacher

pytestmark = pytest.mark.filterwarnings("ignore")

Opened = Callable[..., tuple[config.Recipe, LoadedTeacher]]
Folder = Callable[[str], Path]


class Tracker(AllocationTracker):
    """Counts what takes memory: tensors of the meta device do not."""

    def _add(self, x: torch.Tensor, *, counted: bool) -> None:
        if not x.is_meta:
            super()._add(x, counted=counted)


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def settings_of(name: str, folder: Path, **sections: Any) -> dict[str, Any]:
    family = zoo.load_all()[name]
    return {
        "teacher": {"repo": str(folder), "call": family.call},
        "data": {"source": "builtin:digits/data.npz" if family.conditions == "none" else "teacher"},
        "train": {"steps": 1, "batch_size": 1, "device": "cpu"},
        "export": {"t_mid": [1.1]},
        **sections,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    @functools.cache
    def make(name: str) -> Path:
        place = tmp_path_factory.mktemp(name)
        zoo.load_all()[name].pipeline().save_pretrained(str(place))
        return place

    return make


@pytest.fixture(scope="module")
def opened(folder: Folder) -> Opened:
    """A recipe, and its teacher, which is loaded once."""

    @functools.cache
    def load(name: str) -> LoadedTeacher:
        return networks.load_teacher(config.parse(settings_of(name, folder(name))), None, 1)

    def make(name: str, **sections: Any) -> tuple[config.Recipe, LoadedTeacher]:
        return config.parse(settings_of(name, folder(name), **sections)), load(name)

    return make


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "WRITTEN", 0)


def state(loaded: LoadedTeacher) -> tuple[dict[str, torch.Tensor], list[type]]:
    net = loaded.F_teacher.net
    return {name: x.clone() for name, x in net.state_dict().items()}, [type(module) for module in net.modules()]


RANGE, LORA, BOTH = (
    {"guidance": {"scale": (2, 14)}},
    {"lora": {"rank": 2}},
    {"lora": {"rank": 2, "targets": "all-linear"}},
)
CASES = [
    ("sd15", RANGE, 0),
    ("sd15", {}, 2 * 10**9),
    ("wan", BOTH, 0),
    ("ddpm", {}, 0),
]
MORE = [
    ("sd15", {"guidance": {"scale": 3.0}, **LORA}, 0),
    ("sdxl", RANGE, 0),
    ("flux", {"guidance": {"scale": (2, 8)}, **LORA}, 0),
    ("mochi", {"guidance": {"scale": 3.0}}, 0),
    ("mochi", {}, 2 * 10**9),
    ("wan22", {}, 0),
    ("stable_audio", {"objective": {"sigma_d": 1.0}}, 0),
    ("pixart_sigma", {"adapt": {"output": "keep"}}, 0),
    ("cogview4", {"guidance": {"scale": 3.0}}, 0),
    ("hunyuanimage", {}, 0),
    ("flux2_klein", {}, 0),
    ("dit", LORA, 0),
    ("ddpm", {**LORA, "adapt": {"reclock": False}}, 2 * 10**9),
]


@pytest.mark.parametrize(("name", "sections", "written"), [*CASES, *wide(*MORE)])
def test_an_untrained_student_is_the_stock_pipelines(
    name: str, sections: Any, written: int, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "WRITTEN", written)
    recipe, loaded = opened(name, **sections)
    before, classes = state(loaded)
    heard = Heard()
    rehearsal.before_training(recipe, loaded, tmp_path, heard)
    assert [path.name for path in tmp_path.iterdir()] == ["export_check.json"]
    assert json.loads((tmp_path / "export_check.json").read_text())["difference"] < 5e-5
    assert len(heard.said) == 1
    assert "export.check_first=false" in heard.said[0]
    after, still = state(loaded)
    assert still == classes
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(("name", "sections"), [("sd15", RANGE), *wide(("wan", BOTH), ("sd15", {}), ("mochi", {}))])
@pytest.mark.usefixtures("in_memory")
def test_the_weights_of_a_large_network_are_handed_over(
    name: str, sections: Any, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, loaded = opened(name, **sections)
    check = rehearsal.self_check.check
    seen: list[float] = []

    def looked(folder: Path, *arguments: Any) -> Any:
        written = [path.name for path in folder.rglob("*") if path.is_file()]
        assert {"model_index.json", "scheduler_config.json", "config.json"} < set(written)
        assert not [name for name in written if name.endswith((".safetensors", ".bin"))]
        reading, pipeline = loaded.teacher.reading, arguments[-1]
        assert reading
        weights = list(getattr(pipeline, reading.stock.denoiser).parameters())
        of_teacher = {p.untyped_storage().data_ptr() for p in loaded.F_teacher.parameters()}
        seen.append(sum(p.nbytes for p in weights if p.untyped_storage().data_ptr() in of_teacher))
        seen.append(sum(p.nbytes for p in weights))
        assert pipeline.vae is reading.stock.pipeline.vae
        return check(folder, *arguments)

    monkeypatch.setattr(rehearsal.self_check, "check", looked)
    rehearsal.before_training(recipe, loaded, tmp_path, Silent())
    shared, total = seen
    assert shared > 0.8 * total


@pytest.mark.parametrize("sections", [{}, *wide(LORA)])
@pytest.mark.usefixtures("in_memory")
def test_no_second_copy_of_a_network_is_made(sections: Any, tmp_path: Path) -> None:
    """Nearly all weights are tables of class embeddings here, one a layer, beside which activations are small."""
    pipeline = zoo.load_all()["dit"].pipeline()
    net: Any = pipeline.transformer
    large = type(net).from_config(net.config, num_embeds_ada_norm=100_000, num_layers=5).eval()
    pipeline.register_modules(transformer=large)
    pipeline.save_pretrained(str(tmp_path / "teacher"))
    recipe = config.parse(settings_of("dit", tmp_path / "teacher", **sections))
    loaded = networks.load_teacher(recipe, None, 1)
    (tmp_path / "run").mkdir()
    with Tracker(fake=False) as tracker:
        rehearsal.before_training(recipe, loaded, tmp_path / "run", Silent())
    assert tracker.peak.total < 0.5 * sum(p.nbytes for p in loaded.F_teacher.parameters())


def drops_a_key(patch: pytest.MonkeyPatch) -> None:
    inner = FlowMatchEulerDiscreteScheduler.to_json_string

    def written(self: Any) -> str:
        return json.dumps({name: v for name, v in json.loads(inner(self)).items() if name != "shift_terminal"})

    patch.setattr(FlowMatchEulerDiscreteScheduler, "to_json_string", written)


def brings_its_own_scheduler(patch: pytest.MonkeyPatch) -> None:
    init = WanPipeline.__init__

    @functools.wraps(init)
    def own(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "scheduler": FlowMatchEulerDiscreteScheduler()})

    patch.setattr(WanPipeline, "__init__", own)


def is_not_rebuilt(patch: pytest.MonkeyPatch) -> None:
    inner = WanTransformer3DModel.save_config

    def written(self: Any, folder: Any, **options: Any) -> None:
        inner(self, folder, **options)
        path = Path(folder) / "config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "ffn_dim": settings["ffn_dim"] + 8}))

    patch.setattr(WanTransformer3DModel, "save_config", written)


def has_no_guidance_input(patch: pytest.MonkeyPatch) -> None:
    """As for the folders whose UNet's file lacks the key: diffusers counts it among the defaults, and drops it."""

    def lacking(net: Any) -> Any:
        settings = {k: v for k, v in net.config.items() if k != "_use_default_values"}
        again = {**settings, "_use_default_values": ["time_cond_proj_dim"], "time_cond_proj_dim": 256}
        wider = UNet2DConditionModel.from_config(again)
        wider.load_state_dict(net.state_dict())
        return wider

    patch.setattr(stable_diffusion, "with_input", lacking)


def fails_in_its_call(patch: pytest.MonkeyPatch) -> None:
    inner = FlowMatchEulerDiscreteScheduler.step

    @functools.wraps(inner)
    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.config.stochastic_sampling:  # the student's, not the teacher's
            raise TypeError("unsupported operand")
        return inner(self, *arguments, **named)

    patch.setattr(FlowMatchEulerDiscreteScheduler, "step", step)


FAULTS: list[tuple[Any, str, str]] = [
    (has_no_guidance_input, "sd15", r"makes \[1, 1\] network calls of batch \[2, 2\]"),
    (drops_a_key, "wan", "differs from scm-distill's sampler by"),
    (brings_its_own_scheduler, "wan", "brings its own scheduler along"),
    (is_not_rebuilt, "wan", "size mismatch"),
    (fails_in_its_call, "wan", "stock diffusers fails with TypeError: unsupported operand"),
]


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def drawn(*_: Any, **__: Any) -> None:
        raise AssertionError("the run has begun to prepare its data")

    monkeypatch.setattr(latents, "prepare", drawn)
    monkeypatch.setattr("scm_distill.training.setup.prepare", drawn)
    return


@pytest.mark.parametrize(("plant", "name", "say"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
@pytest.mark.usefixtures("in_memory")
def test_a_planted_fault_stops_it(
    plant: Any, name: str, say: str, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, loaded = opened(name, **({"guidance": {"scale": 7.5}} if name == "sd15" else {}))
    plant(monkeypatch)
    with pytest.raises(UserError, match=say) as refused:
        rehearsal.before_training(recipe, loaded, tmp_path, Silent())
    assert refused.value.code == 2
    assert "cannot be exported: " in refused.value.problem
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_is_drawn")
def test_a_run_stops_before_its_first_sample_and_leaves_nothing(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    settings = settings_of("wan", folder("wan"), data={"source": "teacher", "prompts": str(prompts)})
    drops_a_key(monkeypatch)
    with pytest.raises(UserError, match="cannot be exported"):
        train(config.parse(settings), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="cannot be exported"):
        plan_train(config.parse(settings))
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_it_is_done_once_for_a_student(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, loaded = opened("wan")
    done: list[config.Recipe] = []
    found = rehearsal.Rehearsed(1e-7, {})
    monkeypatch.setattr(rehearsal, "rehearse", lambda recipe, *_: done.append(recipe) or found)
    leftover = tmp_path / rehearsal.FOLDER / "export"
    leftover.mkdir(parents=True)  # by a process that was killed
    (leftover / "model_index.json").touch()
    for _ in range(2):
        rehearsal.before_training(recipe, loaded, tmp_path, Silent())
        assert [path.name for path in tmp_path.iterdir()] == ["export_check.json"]
    assert done == [recipe]
    other, _ = opened("wan", lora={"rank": 2})
    rehearsal.before_training(other, loaded, tmp_path, Silent())
    assert done == [recipe, other]
    files.write_text(tmp_path / "export_check.json", "{")
    rehearsal.before_training(other, loaded, tmp_path, Silent())
    assert done == [recipe, other, other]
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: rehearsal.Rehearsed(float("nan"), {}))
    with pytest.raises(UserError, match="differs"):
        rehearsal.before_training(recipe, loaded, tmp_path, Silent())


def test_it_can_be_left_out(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, loaded = opened("wan", export={"t_mid": [1.1], "check_first": False})
    monkeypatch.setattr(rehearsal, "rehearse", None)
    heard = Heard()
    rehearsal.before_training(recipe, loaded, tmp_path, heard)
    assert not list(tmp_path.iterdir())
    assert heard.said == [
        "export.check_first=false: whether stock diffusers runs the student is known after training only"
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("CUDA out of memory.")], ids=repr)
def test_whatever_ends_it_leaves_nothing(
    error: BaseException, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, loaded = opened("wan")

    def interrupted(*_: Any) -> None:
        assert (tmp_path / rehearsal.FOLDER / "export" / "model_index.json").exists()
        raise error

    monkeypatch.setattr(rehearsal.self_check, "check", interrupted)
    with pytest.raises(type(error)):
        rehearsal.before_training(recipe, loaded, tmp_path, Silent())
    assert not list(tmp_path.iterdir())


def test_a_full_device_leaves_it_to_the_cpu(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, loaded = opened("wan")
    devices, inner, untrained = [torch.device("cuda")], rehearsal._rehearse, rehearsal.untrained

    def once(*arguments: Any) -> Any:
        if devices[-1].type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inner(*arguments)

    monkeypatch.setattr(rehearsal, "_device", lambda _: devices[-1])
    monkeypatch.setattr(rehearsal, "untrained", lambda *_: untrained(*_) if devices[-1].type == "cpu" else None)
    monkeypatch.setattr(rehearsal, "_move", lambda _, device: devices.append(device))
    monkeypatch.setattr(rehearsal, "_rehearse", once)
    heard = Heard()
    rehearsal.before_training(recipe, loaded, tmp_path, heard)
    assert devices == [torch.device(name) for name in ("cuda", "cpu", "cuda")]
    assert heard.said[0] == "the cuda device is full: the export is checked on the CPU"
    assert (tmp_path / "export_check.json").exists()
