"""Real samples, and their features' cache."""

import json
import os
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scm_distill.errors import UserError
from scm_distill.evaluation import cache
from scm_distill.evaluation.cache import gathered, reference_features, share
from scm_distill.evaluation.extractors import open_extractor
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.reference import open_reference

DIGITS = "builtin:digits/data.npz"


@pytest.fixture(autouse=True)
def kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCM_DISTILL_CACHE", str(tmp_path / "cache"))


def test_digits_come_as_they_are() -> None:
    reference = open_reference(DIGITS, "image", (1, 8, 8), n=20, seed=3)
    assert (len(reference), reference.total) == (20, 1797)
    arrays = np.load(Path(cache.__file__).parents[1] / "builtin/digits/data.npz")
    for image, i in zip(reference, reference.indices, strict=True):
        assert np.array_equal(np.asarray(image), arrays["images"][i])
    again, other = (open_reference(DIGITS, "image", (1, 8, 8), n=20, seed=seed) for seed in (3, 4))
    assert again.indices == reference.indices != other.indices
    everything = open_reference(DIGITS, "image", (1, 8, 8), n=5000, seed=3)
    assert everything.indices == list(range(1797))


def test_a_folder_of_images_with_classes(image_folder: Path) -> None:
    reference = open_reference(str(image_folder), "image", (3, 12, 10), n=100, seed=0)
    assert {image.size for image in reference} == {(10, 12)}
    assert {image.mode for image in reference} == {"RGB"}
    assert reference.total == len(reference)


def test_clips_and_sounds(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    shades = [Image.new("RGB", (20, 20), (50 * i, 0, 0)) for i in range(5)]
    shades[0].save(tmp_path / "clips" / "a.gif", save_all=True, append_images=shades[1:])
    clip = open_reference(str(tmp_path / "clips"), "video", (3, 4, 8, 16), n=1, seed=0)[0]
    assert [frame.size for frame in clip] == [(16, 8)] * 4
    assert [frame.getpixel((4, 4))[0] for frame in clip] == [0, 50, 100, 150]
    (tmp_path / "sounds").mkdir()
    with wave.open(str(tmp_path / "sounds" / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.full(100, 2**14, "<i2").tobytes())
    sound = open_reference(str(tmp_path / "sounds"), "audio", (2, 60), n=1, seed=0, rate=8000)[0]
    assert sound.shape == (2, 60)
    assert (sound == 0.5).all()


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no real samples teacher"):
        open_reference("teacher", "image", (3, 8, 8), n=1, seed=0)
    with pytest.raises(UserError, match="holds images, and the model makes audio"):
        open_reference(DIGITS, "audio", (1, 100), n=1, seed=0)
    with pytest.raises(UserError, match=r"holds no file of \.wav"):
        open_reference(str(tmp_path), "audio", (1, 100), n=1, seed=0)


def counted() -> tuple[Extractor, Callable[[], int]]:
    """The blocks, and how many samples they have seen."""
    blocks, seen = open_extractor("blocks"), []

    def prepare(sample: Image.Image) -> torch.Tensor:
        seen.append(sample)
        return blocks.prepare(sample)

    return Extractor(blocks.identity, prepare, blocks.net, blocks.device), lambda: len(seen)


def test_features_are_computed_once() -> None:
    extractor, seen = counted()
    reference = open_reference(DIGITS, "image", (1, 8, 8), n=30, seed=0)
    first = reference_features(extractor, reference)
    assert (first.origin, seen()) == ("computed", 30)
    again = reference_features(extractor, open_reference(DIGITS, "image", (1, 8, 8), n=30, seed=0))
    assert (again.origin, seen()) == ("from the cache", 30)
    assert torch.equal(first.features, again.features)
    assert [path.suffix for path in cache.folder().iterdir()] == [".safetensors"]


def test_everything_that_changes_features_changes_the_key(image_folder: Path) -> None:
    def key(extractor: Extractor, source: str = DIGITS, size: int = 8, n: int = 30, seed: int = 0) -> str:
        return cache.key_of(extractor, open_reference(source, "image", (1, size, size), n=n, seed=seed))

    blocks, folder = open_extractor("blocks"), str(image_folder)
    other = Extractor(blocks.identity, blocks.prepare, blocks.net, blocks.device, "another setting")
    keys = [
        key(blocks), key(blocks, seed=1), key(blocks, n=31), key(blocks, size=16), key(open_extractor("digits")),
        key(other), key(blocks, folder),
    ]  # fmt: skip
    os.utime(next(image_folder.rglob("*.png")), (0, 0))
    keys.append(key(blocks, folder))
    assert len(set(keys)) == len(keys)
    assert key(blocks, n=5000) == key(blocks, n=6000, seed=1)  # all of them, either way


@pytest.mark.parametrize("damage", [b"broken", None], ids=["bytes", "rows"])
def test_a_damaged_file_is_computed_again_and_that_is_said(damage: bytes | None) -> None:
    extractor, seen = counted()
    reference = open_reference(DIGITS, "image", (1, 8, 8), n=30, seed=0)
    first = reference_features(extractor, reference)
    file = next(cache.folder().iterdir())
    if damage:
        file.write_bytes(damage)
    else:
        cache._write(file, first.features[:-1])
    again = reference_features(extractor, reference)
    assert again.origin == f"computed again: the cached file {file.name} was damaged"
    assert torch.equal(first.features, again.features)
    assert reference_features(extractor, reference).origin == "from the cache"
    assert seen() == 60


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    reference = open_reference(DIGITS, "image", (1, 8, 8), n=5, seed=0)
    assert "computed; not kept: " in reference_features(open_extractor("blocks"), reference).origin


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.folder() == Path(os.environ["SCM_DISTILL_CACHE"]) / "features"
    monkeypatch.delenv("SCM_DISTILL_CACHE")
    assert cache.folder() == Path("/elsewhere/scm-distill/features")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "scm-distill" / "features"


def test_one_process_has_everything() -> None:
    assert share(5, None) == range(5)
    assert torch.equal(gathered(torch.eye(3), 3, None), torch.eye(3))


WORKER = """
import json, sys, torch
from pathlib import Path
from accelerate import Accelerator
from scm_distill.errors import UserError
from scm_distill.evaluation.cache import gathered, reference_features, share
from scm_distill.evaluation.extractors import open_extractor
from scm_distill.evaluation.reference import open_reference
accelerator = Accelerator(cpu=True)
mine = share(7, accelerator)
rows = gathered(torch.tensor([[float(i), -i] for i in mine]), 7, accelerator)
reference = open_reference("builtin:digits/data.npz", "image", (1, 8, 8), n=31, seed=0)
known = [reference_features(open_extractor("blocks"), reference, accelerator) for _ in range(2)]
try:
    share(1, accelerator)
except UserError as error:
    refused = error.problem
found = [list(mine), rows.tolist(), [k.origin for k in known], [float(k.features.sum()) for k in known], refused]
Path(f"{accelerator.process_index}.json").write_text(json.dumps(found))
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_share_and_gather_in_order(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "worker.py"]
    subprocess.run(torchrun, cwd=tmp_path, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    reference = open_reference(DIGITS, "image", (1, 8, 8), n=31, seed=0)
    alone = reference_features(open_extractor("blocks"), reference)
    assert alone.origin == "from the cache"
    for rank, mine in enumerate(([0, 1, 2], [3, 4, 5, 6])):
        shared, rows, origins, sums, refused = json.loads((tmp_path / f"{rank}.json").read_text())
        assert shared == mine
        assert rows == [[i, -i] for i in range(7)]
        assert origins == ["computed", "from the cache"]
        assert sums == [pytest.approx(float(alone.features.sum()))] * 2
        assert refused == "1 samples are too few for 2 processes."
