"""Recipes: what parses, what is refused, what beats what."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scm_distill import config
from scm_distill.config.settings_page import source_of
from scm_distill.errors import UserError


@pytest.mark.parametrize("name", config.names())
def test_every_packaged_recipe_parses_and_says_its_cost_and_command(name: str) -> None:
    config.read(name)
    header = [line for line in config.path_of(name).read_text().splitlines() if line.startswith("#")]
    assert any("Cost:" in line for line in header)
    assert any(f"scm-distill train {name}" in line for line in header)


def test_the_command_line_beats_the_file_and_the_last_one_wins() -> None:
    recipe = config.read("digits", ["optimizer.lr=1e-5", "optimizer.lr=3e-5", "optimizer.grad_clip=null"])
    assert recipe.optimizer.lr == 3e-5
    assert recipe.optimizer.grad_clip is None


def test_a_recipe_written_out_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = config.read("digits", ["export.t_mid=[0.7]"])
    path = tmp_path / "config.yaml"
    path.write_text(config.dump(recipe))
    assert config.read(str(path)) == recipe
    assert config.differences(recipe, config.read("digits")) == [
        "export.t_mid [0.7] -> [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]"
    ]


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        config.read("digits", ["train.stepz=1", "adapt.tolerance=0", "optimizer.betas=[2, 0]"])
    for key in ("train.stepz", "adapt.tolerance", "optimizer.betas.0"):
        assert key in caught.value.problem


@given(st.sampled_from(["optimizer", "train", "sampler"]), st.text("abcdefgh_", min_size=1, max_size=12))
def test_no_unknown_key_slips_through(section: str, key: str) -> None:
    known = set(config.Recipe.model_fields[section].annotation.model_fields)
    if key not in known:
        with pytest.raises(UserError, match="unknown setting"):
            config.read("digits", [f"{section}.{key}=1"])


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["train.micro_batch_size=48"], "train.batch_size 64 is no multiple of train.micro_batch_size 48"),
        (["guidance.scale=[3, 3]"], "guidance.scale [3.0, 3.0] is no range from low to high"),
        (
            ["objective.tangent=difference", "train.precision=bf16"],
            "objective.tangent=difference needs train.precision",
        ),
        (
            ["objective.tangent=difference", "train.tf32=true"],
            "objective.tangent=difference needs train.compile=off or auto and",
        ),
        (["train.compile=blocks", "train.memory=lean"], "train.compile needs train.memory=fast or auto"),
        (["train.compile=step", "train.shard=all"], "train.compile=step needs train.shard=off"),
        (["teacher.dtype=bf16"], "teacher.dtype=bf16 needs train.precision=bf16"),
        (["teacher.dtype=int8", "train.precision=bf16", "train.shard=all"], "train.shard=all cannot share out"),
        (["train.shard=student", "train.offload=[ema]"], "train.shard shares out the EMA already"),
        (["train.shard=all", "train.offload=[teacher]"], "train.offload=[teacher] and train.shard=all"),
        (["push.repo=student"], "push.repo 'student' is no Hub id"),
        (["guidance.dropout=0.1"], "guidance.dropout needs guidance.scale"),
        (["lora.alpha=4"], "lora.alpha needs lora.rank"),
    ],
)
def test_settings_that_do_not_go_together_are_one_sentence(overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        config.read("digits", overrides)
    assert caught.value.problem.startswith(problem)
    assert caught.value.problem.endswith(".")


def test_parsing_leaves_its_input_alone() -> None:
    content = {"teacher": {"repo": "a"}, "data": {"source": "b"}, "train": {"steps": 1, "batch_size": 2}}
    assert config.parse(content, ["train.steps=5"]).train.steps == 5
    assert content["train"] == {"steps": 1, "batch_size": 2}


def test_the_settings_page_says_what_every_setting_does_and_where_its_default_comes_from() -> None:
    page = config.settings_page()
    for name, field in config.Recipe.model_fields.items():
        for key, setting in field.annotation.model_fields.items():
            assert setting.description, f"{name}.{key}"
            assert setting.is_required() or source_of(setting), f"{name}.{key}"
            assert f"\n  {key}  " in page.partition(f"\n{name}: ")[2]
    assert ".md" not in page
    for line in (
        "  betas  [number >= 0 and < 1, number >= 0 and < 1]  = [0.9, 0.99]",
        "  micro_batch_size  integer > 0 | null  = null",
        "  steps  integer > 0  required",
        "  tangent  auto | jvp | difference  = auto",
        "      source: paper, section 4.2",
    ):
        assert line in page.splitlines()


@pytest.mark.parametrize("key", ["train.compile", "train.shard"])
def test_off_is_a_word_though_yaml_reads_it_as_false(key: str) -> None:
    section, name = key.split(".")
    assert getattr(getattr(config.read("digits", [f"{key}=off"]), section), name) == "off"
