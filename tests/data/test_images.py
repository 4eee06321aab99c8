"""Folders and arrays of images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scm_distill.data import open_images
from scm_distill.data.images import to_tensor
from scm_distill.data.pictures import FRAME, grid, to_images
from scm_distill.errors import UserError


def test_a_folder_of_mixed_sizes_and_modes(image_folder: Path) -> None:
    images = open_images(str(image_folder), (3, 8, 8))
    x_0, labels = images.__getitems__(range(len(images)))
    assert x_0.shape == (18, 3, 8, 8)
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert images.classes == 3
    assert -1 <= x_0.min() < x_0.max() <= 1


def test_cover_and_crop_keep_the_middle_undistorted() -> None:
    image = Image.new("L", (32, 8), 0)
    image.paste(255, (12, 0, 20, 8))  # the middle square
    assert torch.equal(to_tensor(image, (1, 8, 8)), torch.ones(1, 8, 8))


def test_pixels_survive_the_way_there_and_back() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    x_0 = to_tensor(Image.fromarray(pixels), (1, 8, 8))
    assert np.array_equal(np.array(to_images(x_0[None])[0]), pixels)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.full((8, 8), 32896, dtype=np.uint16))
    assert to_tensor(image, (1, 8, 8)).abs().max() < 0.01


def test_numbered_class_folders_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for label in range(12):
        (tmp_path / str(label)).mkdir()
        Image.new("L", (8, 8), 20 * label).save(tmp_path / str(label) / "0.png")
    images = open_images(str(tmp_path), (1, 8, 8))
    x_0, labels = images.__getitems__(range(12))
    assert torch.allclose((x_0[:, 0, 0, 0] + 1) * 127.5 / 20, labels.float(), atol=1e-3)


def test_a_grid_magnifies_tiny_images_and_fills_its_last_row() -> None:
    sheet = grid(to_images(torch.ones(5, 1, 8, 8)), columns=3)
    cell = 64 + 2 * FRAME
    assert sheet.size == (3 * cell, 2 * cell)
    assert sheet.getpixel((FRAME, FRAME)) == (255, 255, 255)
    assert sheet.getpixel((3 * cell - FRAME - 1, 2 * cell - FRAME - 1)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "content", "say"),
    [("missing", None, "no image folder"), ("a.npz", b"garbage", "cannot be read"), ("a.txt", b"x", "no image folder")],
)
def test_sources_that_are_none(name: str, content: bytes | None, say: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=say):
        open_images(str(tmp_path / name), (1, 8, 8))


def test_empty_folders_damaged_images_and_wrong_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        open_images(str(tmp_path), (1, 8, 8))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot be (read|decoded)"):
        open_images(str(tmp_path), (1, 8, 8))
    np.savez(tmp_path / "f.npz", images=np.zeros((2, 8, 8)))
    with pytest.raises(UserError, match="float64"):
        open_images(str(tmp_path / "f.npz"), (1, 8, 8))


def test_labels_of_arrays_without_any_are_unknown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    found = open_images(str(tmp_path / "a.npz"), (1, 8, 8))
    assert found.__getitems__([0, 1])[1].tolist() == [-1, -1]
    assert found.classes == 0
