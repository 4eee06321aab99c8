"""Recipes: what parses, what is refused, what beats what."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scm_distill import config
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
