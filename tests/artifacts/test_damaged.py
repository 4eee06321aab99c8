"""Damaged files of a run: one sentence where a command needs the file, a note where it can go on without it."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_net
from damage import FIRST, KINDS, damage
from diffusers import DDIMScheduler, DDPMPipeline
from hub import student
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from scm_distill import config
from scm_distill.artifacts import layout
from scm_distill.artifacts.export_record import ExportRecord
from scm_distill.artifacts.files import save_tensors
from scm_distill.artifacts.run_records import Endpoints, Environment, EvaluationLine, Session
from scm_distill.cli.app import app
from scm_distill.commands import train
from scm_distill.commands.sample_index import Entry
from scm_distill.errors import UserError
from scm_distill.evaluation import cache
from scm_distill.evaluation.extractors import open_extractor
from scm_distill.evaluation.reference import open_reference
from scm_distill.export import schedulers
from scm_distill.progress import Silent
from scm_distill.training import checkpoint, environment
from scm_distill.training.checkpoint import TrainState
from scm_distill.training.metrics import Records

pytestmark = pytest.mark.filterwarnings("ignore")

EACH = [pytest.param(kind, marks=() if kind in FIRST else pytest.mark.wide) for kind in KINDS]
each_kind = pytest.mark.parametrize("kind", EACH)


class Listener(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def refused(*arguments: object) -> str:
    """What a command says that ends with exit code 2, in one sentence and a fix."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 2, done.output
    assert re.fullmatch(r"(?s)error: .+\n  fix: .+\n", done.stderr)
    assert done.stderr.count("error: ") == 1
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an export, made without training."""
    run = tmp_path_factory.mktemp("whole") / "run"
    bar = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    net, scheduler = tiny_net(), schedulers.discrete(bar, "v_prediction", 8)
    DDPMPipeline(net, scheduler).save_pretrained(str(run / "export"))
    DDPMPipeline(net, DDIMScheduler()).save_pretrained(str(run.parent / "teacher"))
    facts: Any = {
        **student.FACTS, "hub_id": None, "reference": 8, "trained": {**student.FACTS["trained"], "teacher_call": {}},
    }  # fmt: skip
    record = ExportRecord.model_validate({"call": {"num_inference_steps": 2}, "lora": None, "facts": facts})
    record.write(run / "export" / layout.FACTS)
    recipe = config.parse(
        {"teacher": {"repo": str(run.parent / "teacher")}, "data": {"source": "teacher"},
         "train": {"steps": 4, "batch_size": 4, "device": "cpu"}}
    )  # fmt: skip
    (run / layout.RECIPE).write_text(config.dump(recipe))
    state = checkpoint.state_at(4, 20.0, (1.0, 2.0), recipe)
    (run / "checkpoints" / "step-4").mkdir(parents=True)
    state.write(run / "checkpoints" / "step-4" / layout.STATE)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return shutil.copytree(whole, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@each_kind
def test_a_checkpoint_whose_state_is_damaged_is_named_and_nothing_changes(kind: str, run: Path) -> None:
    shutil.copy(run / layout.RECIPE, run.parent / "mine.yaml")
    damage(run / "checkpoints" / "step-4" / layout.STATE, kind)
    before = contents(run)
    for resume in ("auto", run / "checkpoints" / "step-4"):
        text = refused("train", "mine.yaml", "-o", run, "--resume", resume)
        assert "step-4 is damaged: state.json" in text
        assert ("Move it away." if kind == "folder" else "Resume from an older one.") in text
    assert contents(run) == before


@each_kind
def test_a_damaged_recipe_of_a_run_is_written_anew_and_named(kind: str, run: Path) -> None:
    recipe, listener = config.read(str(run / layout.RECIPE)), Listener()
    damage(run / layout.RECIPE, kind)
    if kind == "folder":
        with pytest.raises(UserError, match="is a folder"):
            train._note(recipe, run, listener)
        return
    train._note(recipe, run, listener)
    assert config.read(str(run / layout.RECIPE)) == recipe
    assert len(listener.said) == 1
    assert listener.said[0].endswith("It is written anew.")


class Tiny(nn.Linear):
    """A student as far as a checkpoint knows one."""

    trained = ("weight", "bias")


def tiny_state() -> TrainState:
    net = Tiny(2, 3)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return TrainState(net, optimizer, SimpleNamespace(module=Tiny(2, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["student", "optimizer", "ema"])
def test_damaged_tensors_of_a_checkpoint_are_one_sentence(name: str, tmp_path: Path) -> None:
    state = tiny_state()
    for file, tensors in state.items():
        save_tensors({key: x.detach() for key, x in tensors()}, tmp_path / f"{file}.safetensors")
    state.load(tmp_path)  # whole, it can be read
    path = tmp_path / f"{name}.safetensors"
    foreign = {
        "other names": {"weight2|exp_avg": torch.ones(3, 2)}, "other shapes": {"weight|exp_avg": torch.ones(1, 1)},
        "none": {"bias": torch.ones(1)},
    }  # fmt: skip
    for kind in KINDS:
        before = path.read_bytes()
        damage(path, kind)
        with pytest.raises(UserError, match=r"cannot be loaded: .*safetensors") as error:
            state.load(tmp_path)
        assert error.value.fix == "Resume from an older one."
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(before)
    for tensors in foreign.values():
        save_tensors(tensors, path)
        with pytest.raises(UserError, match="cannot be loaded"):
            state.load(tmp_path)


@each_kind
def test_damaged_metrics_are_left_out_and_named_when_a_run_goes_on(kind: str, tmp_path: Path) -> None:
    ends = Endpoints(rmse=1.0, one_step=2.0, two_steps=3.0)
    path, listener = tmp_path / layout.METRICS, Listener()
    whole = EvaluationLine(step=0, student=ends, teacher=ends).line()
    path.write_text(whole + "\n" + whole + "\n")
    damage(path, kind)
    if kind == "folder":
        with pytest.raises(UserError, match="is a folder"):
            Records(tmp_path, 4, listener, main=True)
        return
    path.write_bytes(path.read_bytes() + b"\n" + whole.encode() + b"\n")
    records = Records(tmp_path, 4, listener, main=True)
    records.write(EvaluationLine(step=4, student=ends, teacher=ends))
    assert path.read_text() == whole + "\n" + whole.replace('"step": 0', '"step": 4') + "\n"
    assert bool(listener.said) == (kind not in ("empty", "cut"))  # what is cut at a line's end is whole
    assert all("metrics.jsonl" in text and text.endswith("it is left out") for text in listener.said)


@each_kind
def test_a_damaged_env_json_is_set_aside_and_named(kind: str, tmp_path: Path) -> None:
    path, listener = tmp_path / layout.ENVIRONMENT, Listener()
    session = Session(date="", command="", step=0, versions={}, platform="", devices=(), processes=1)
    Environment(sessions=(session,)).write(path)
    damage(path, kind)
    environment.note(tmp_path, 3, 1, torch.device("cpu"), listener)
    assert [session.step for session in Environment.read(path).sessions] == [3]
    assert (tmp_path / "env.json.broken").exists()
    assert len(listener.said) == 1
    assert listener.said[0].startswith("env.json ")


@pytest.mark.parametrize("file", ["scm_distill.json", "model_index.json"])
@each_kind
def test_sample_and_eval_refuse_an_export_that_they_cannot_use(file: str, kind: str, run: Path) -> None:
    damage(run / "export" / file, kind)
    before = contents(run)
    for command in (["sample", run, "--compare", "teacher", "-o", "out"], ["eval", run, "-n", "8", "--steps", "2"]):
        text = refused(*command, "--device", "cpu")
        assert file in text or "has no export yet" in text
    assert contents(run) == before
    assert not Path("out").exists()


@each_kind
def test_eval_refuses_a_run_whose_recipe_it_cannot_read(kind: str, run: Path) -> None:
    damage(run / layout.RECIPE, kind)
    if kind == "folder":  # then the export has no run
        return
    refused("eval", run, "-n", "8", "--steps", "2", "--device", "cpu")
    refused("sample", run, "--compare", "teacher", "-o", "out", "--device", "cpu")


@each_kind
def test_an_index_of_samples_that_is_none_is_refused_and_a_torn_one_goes_on(kind: str, run: Path) -> None:
    path = Path("out") / "index.jsonl"
    path.parent.mkdir()
    whole = Entry(file="seed-00009.png", seed=9, steps=2, by="student").line() + "\n"
    path.write_text(whole + whole.replace("9", "8") + ("x" * len(whole) if kind == "cut" else ""))
    damage(path, kind)
    if kind not in ("cut", "empty"):
        assert "index" in refused("sample", run, "-n", "1", "-o", "out", "--device", "cpu")
        return
    done = CliRunner().invoke(app, ["sample", str(run), "-n", "1", "-o", "out", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert ("the last line of out/index.jsonl is torn" in done.stderr) == (kind == "cut")
    names = [Entry.parse(line, path).file for line in path.read_text().splitlines()]
    assert names == [*(["seed-00009.png"] if kind == "cut" else []), "seed-00000.png"]


@each_kind
def test_damaged_features_are_computed_again_and_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCM_DISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "real").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (50 * i, 9, 9)).save(tmp_path / "real" / f"{i}.png")
    extractor = open_extractor("blocks")
    real = open_reference(str(tmp_path / "real"), "image", (3, 8, 8), n=4, seed=0, rate=None)
    first = cache.reference_features(extractor, real)
    assert cache.reference_features(extractor, real).origin == "from the cache"
    damage(next((tmp_path / "cache" / "features").iterdir()), kind)
    again = cache.reference_features(extractor, real)
    assert torch.equal(again.features, first.features)
    assert again.origin.startswith("computed")
    assert ("was damaged" in again.origin) == (kind != "folder")
    assert ("not kept" in again.origin) == (kind == "folder")


def test_all_files_of_a_run_are_written_by_one_function(run: Path) -> None:
    """What a command may leave is its own name or nothing: no other writer has a suffix of its own."""
    source = Path(layout.__file__).parents[1]
    writers = [
        path.name
        for path in source.rglob("*.py")
        if re.search(r"\.rename\(|\.writing\"|\bsave_file\(", path.read_text())
    ]
    assert sorted(writers) == ["files.py", "make_digits.py"]
