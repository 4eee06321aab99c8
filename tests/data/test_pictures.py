"""One picture, or one list of frames, of whatever a pipeline returns for a sample."""

import numpy as np
import pytest
import torch
from PIL import Image

from scm_distill.data.pictures import frames, grid, is_sound, picture, to_images

CLIP = np.stack([np.full((6, 8, 3), i / 4, np.float32) for i in range(5)])  # (F, H, W, C), frame i of the grey i / 4
PIL_CLIP = [Image.new("RGB", (8, 6), (round(255 * i / 4),) * 3) for i in range(5)]
TONE = np.sin(np.linspace(0, 40, 2000)).astype(np.float32)
CLIPS = {
    "PIL": PIL_CLIP,
    "ndarray": CLIP,
    "tensor": torch.from_numpy(CLIP).permute(0, 3, 1, 2),
    "half tensor": torch.from_numpy(CLIP).permute(0, 3, 1, 2).half(),
    "bytes": (CLIP * 255).round().astype(np.uint8),
}
SOUNDS = {
    "mono": TONE,
    "channels first": np.stack([TONE, TONE]),
    "channels last": np.stack([TONE, TONE], 1),
    "tensor": torch.from_numpy(TONE),
    "stereo tensor": torch.from_numpy(np.stack([TONE, TONE])),
}


def greys(pictures: list[Image.Image]) -> list[int]:
    return [p.getpixel((3, 3))[0] for p in pictures]


def ink(drawn: Image.Image) -> np.ndarray:
    """Black pixels of every column."""
    return (np.asarray(drawn.convert("L")) < 128).sum(0)


@pytest.mark.parametrize("kind", CLIPS)
def test_frames_of_a_clip(kind: str) -> None:
    shown = frames(CLIPS[kind])
    assert greys(shown) == [0, 64, 128, 191, 255]
    assert {p.size for p in shown} == {(8, 6)}


@pytest.mark.parametrize("kind", CLIPS)
def test_a_picture_of_a_clip_is_its_first_middle_and_last_frame(kind: str) -> None:
    sheet = picture(CLIPS[kind])
    assert sheet.size == (24, 6)
    assert [sheet.getpixel((x, 3))[0] for x in (4, 12, 20)] == [0, 128, 255]


def test_values_beyond_the_range_are_clipped() -> None:
    assert greys(frames(3 * CLIP - 1)) == [0, 0, 128, 255, 255]


def test_an_image_is_its_own_picture() -> None:
    assert picture(PIL_CLIP[2]) is PIL_CLIP[2]


@pytest.mark.parametrize("kind", SOUNDS)
def test_sounds_are_sounds(kind: str) -> None:
    assert is_sound(SOUNDS[kind])


@pytest.mark.parametrize("kind", CLIPS)
def test_clips_and_images_are_not(kind: str) -> None:
    assert not is_sound(CLIPS[kind])
    assert not is_sound(PIL_CLIP[0])


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_picture_of_a_sound_is_its_waveform(kind: str) -> None:
    drawn = picture(SOUNDS[kind])
    assert drawn.size == (256, 64)
    assert np.array_equal(np.asarray(drawn), np.asarray(picture(TONE)))


def test_a_waveform_shows_where_it_is_loud() -> None:
    fading = ink(picture(TONE * np.linspace(1, 0, len(TONE))))
    assert fading[:64].sum() > 2 * fading[-64:].sum()
    assert (fading > 0).all()


def test_silence_and_very_short_sounds_can_be_drawn() -> None:
    assert (ink(picture(np.zeros(1000))) == 1).all()
    assert ink(picture(np.array([0.0, 1.0, -1.0]))).sum() > 0


def test_a_sound_of_any_dtype_can_be_drawn() -> None:
    picture(torch.from_numpy(TONE).bfloat16())


def test_pixels_become_images() -> None:
    rgb, grey = to_images(torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)), to_images(torch.full((2, 1, 4, 5), 0.5))
    assert rgb[0].getpixel((0, 0)) == (0, 128, 255)
    assert [(image.mode, image.size) for image in grey] == [("L", (5, 4))] * 2


def test_a_grid_holds_every_picture_and_magnifies_small_ones() -> None:
    sheet = grid(PIL_CLIP, 3)
    width, height = 8 * 10 + 4, 6 * 10 + 4
    assert sheet.size == (3 * width, 2 * height)
    centres = [(x * width + width // 2, y * height + height // 2) for y in range(2) for x in range(3)]
    assert [sheet.getpixel(at)[0] for at in centres] == [0, 64, 128, 191, 255, 0]
