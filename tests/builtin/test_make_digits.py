"""The packaged classifier is what `make_digits` makes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scm_distill.builtin import classifier
from scm_distill.builtin.make_digits import classify


@pytest.mark.slow
def test_the_classifier_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    digits = classifier.WEIGHTS.parent
    made_with = json.loads((digits / "PROVENANCE.json").read_text())["versions"]["torch"]
    if torch.__version__ != made_with:
        pytest.skip(f"it was made with torch {made_with}; another one rounds differently")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net, accuracy = classify(digits / "data.npz")
    torch.set_num_threads(threads)
    save_file(net.state_dict(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == classifier.WEIGHTS.read_bytes()
    assert accuracy > 0.98
