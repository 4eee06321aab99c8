"""Our JSON files: what was written is read again, and anything else is one sentence."""

import json
import math
from pathlib import Path

import pytest

from scm_distill.artifacts.evaluation_record import METRICS, metric
from scm_distill.artifacts.export_record import Sample, Searched, SearchRecord
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.run_records import Endpoints, EvaluationLine, StepLine, read_metrics

RECORD = SearchRecord(chosen=0.8, search=(Searched(t_mid=0.8, distance=math.inf), Searched(t_mid=1, distance=0.5)))
STEP = StepLine(
    step=3, loss=math.nan, grad_norm=1.0, lr=1e-4, tangent=(1.0, None, 2.0, 3.0),
    derivative=(1.0, 1.0, 1.0, 1.0), gap=(0.0, 0.0, 0.0, 0.0),
)  # fmt: skip
ENDS = Endpoints(rmse=1.0, one_step=2.0, two_steps=3.0)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "a.json")
    assert SearchRecord.read(tmp_path / "a.json") == RECORD
    assert next(iter(json.loads((tmp_path / "a.json").read_text()))) == "version"


def test_what_was_left_at_its_default_is_not_written() -> None:
    assert Sample(file="a.png", seed=0, label=None).model_dump(exclude_unset=True) == {
        "file": "a.png", "seed": 0, "label": None,
    }  # fmt: skip


def test_of_the_same_version_unknown_keys_are_ignored_and_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = RECORD.content()
    path.write_text(json.dumps({**content, "more": 1}))
    assert SearchRecord.read(path) == RECORD
    for version, said in ((2, "a later"), (0, "an earlier"), (None, "an earlier"), ("1", "an earlier")):
        path.write_text(json.dumps({**content, "version": version}))
        with pytest.raises(Damaged, match=f"is of {said} version of scm-distill"):
            SearchRecord.read(path)
    path.write_text(json.dumps({"chosen": 0.8, "search": []}))
    with pytest.raises(Damaged, match="is of an earlier version"):
        SearchRecord.read(path)


@pytest.mark.parametrize(
    ("change", "where"),
    [({"chosen": None}, "chosen"), ({"search": 3}, "search"), ({"search": [{"t_mid": 1}]}, "search.0.distance")],
)
def test_a_wrong_value_is_named_by_its_place(change: dict[str, object], where: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**RECORD.content(), **change}))
    with pytest.raises(Damaged, match=rf"is damaged at {where}: "):
        SearchRecord.read(path)


def test_lines_that_are_no_metrics_are_passed_over_and_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    evaluation = EvaluationLine(step=3, student=ENDS, teacher=ENDS)
    again = STEP.model_copy(update={"loss": 7.0})
    lines = [
        STEP.line(), evaluation.line(), "[1]", '{"step": 4}', '{"version": 1, "step": 4}', "",
        STEP.model_copy(update={"step": 1}).line(), again.line(), STEP.line()[:40],
    ]  # fmt: skip
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe{}\n")
    found = read_metrics(path)
    assert [(line.step, line.loss) for line in found.steps[1:]] == [(3, 7.0)]
    assert [line.step for line in found.steps] == [1, 3]
    assert found.evaluations == (evaluation,)
    assert [text.partition(" of ")[0] for text in found.passed_over] == [f"line {i}" for i in (3, 4, 5, 8, 9)]
    assert "metrics.jsonl is damaged at loss: field required" in found.passed_over[2]
    assert read_metrics(path, lambda line: line.step < 3).evaluations == ()
    assert read_metrics(tmp_path / "none").steps == ()


def test_each_metric_has_a_name_and_an_arrow() -> None:
    assert METRICS["fd"].title == "Fréchet distance\N{NO-BREAK SPACE}↓"
    assert METRICS["recall"].title == "Recall\N{NO-BREAK SPACE}↑"
    assert METRICS["diversity"].title == "Diversity"
    assert metric("new_one").name == "New one"
