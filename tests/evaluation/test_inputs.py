"""Samples as a network's input: images, clips and sounds of any form, resized and resampled."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import resample_poly

from scm_distill.data.pictures import to_images
from scm_distill.evaluation.inputs import as_tensor, mono, resample, resize_of, spread, squared_errors


def test_samples_of_any_form_become_the_same_tensor() -> None:
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    images = to_images(x)
    assert torch.allclose(as_tensor(images[0]), x[0], atol=1 / 255)
    assert as_tensor(images[0].convert("L")).shape == (1, 8, 8)
    clip = as_tensor(images)
    assert clip.shape == (3, 2, 8, 8)
    assert torch.equal(clip, as_tensor(np.stack([np.asarray(image) for image in images])))
    sound = np.linspace(-1, 1, 20).reshape(2, 10)
    assert torch.equal(as_tensor(sound), as_tensor(sound.T))
    assert as_tensor(sound[0]).shape == (1, 10)


def test_squared_errors_by_hand() -> None:
    black, white = (Image.new("L", (4, 4), color) for color in ("black", "white"))
    half = Image.fromarray(np.array([[0, 255]], np.uint8))
    assert squared_errors([black, black], [white, black]).tolist() == [4, 0]
    assert squared_errors(iter([half]), [Image.new("L", (2, 1))]).tolist() == [2]
    with pytest.raises(ValueError, match="shorter"):
        squared_errors([black], [])


def test_resize_of_the_forms_that_preprocessors_have() -> None:
    stats = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    old = resize_of({"size": 24, "crop_size": 16, **stats})
    assert (old.fit, old.crop) == ((24, 24), (16, 16))
    assert old.rule == "PIL bicubic (antialiased), shortest side 24, centre crop 16x16"
    both = resize_of({"size": {"height": 16, "width": 32}, "do_normalize": False})
    assert both(Image.new("RGB", (50, 50), "white")).unique().tolist() == [1.0]
    assert both(Image.new("L", (9, 70))).shape == (3, 16, 32)
    assert old(Image.new("RGB", (30, 90), "white")).unique().tolist() == [2.0]
    uncut = resize_of({"size": {"shortest_edge": 24}, "crop_size": 16, "do_center_crop": False, **stats})
    assert uncut.crop == (24, 24)
    with pytest.raises(KeyError):
        resize_of({"crop_size": 16, **stats})


def test_a_black_half_stays_on_its_side() -> None:
    image = Image.new("RGB", (40, 20))
    image.paste("white", (20, 0, 40, 20))
    x = resize_of({"size": 10, "do_normalize": False})(image)
    assert x.shape == (3, 10, 10)
    assert (x[:, :, 0].max(), x[:, :, -1].min()) == (0, 1)


def test_frames_at_even_places() -> None:
    clip = [Image.new("RGB", (1, 1), (i, i, i)) for i in range(9)]
    shown = [[frame.getpixel((0, 0))[0] for frame in spread(clip, count)] for count in (3, 9, 12, 1)]  # type: ignore[index]
    assert shown == [[0, 4, 8], list(range(9)), [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8], [0]]


@pytest.mark.parametrize(("old", "new"), [(44100, 16000), (16000, 48000), (22050, 16000)])
def test_resampling_keeps_tones_and_their_place(old: int, new: int) -> None:
    def tone(rate: int, hertz: float) -> torch.Tensor:
        return torch.sin(2 * math.pi * hertz * torch.arange(rate // 10) / rate)[None]

    inner = slice(new // 50, -new // 50)  # the ends see the silence around
    for hertz in (50, 440, 6000):
        assert torch.allclose(resample(tone(old, hertz), old, new)[:, inner], tone(new, hertz)[:, inner], atol=5e-3)
    theirs = torch.from_numpy(resample_poly(tone(old, 440).numpy(), new, old, axis=1))
    assert resample(tone(old, 440), old, new).shape == theirs.shape
    assert torch.allclose(resample(tone(old, 440), old, new)[:, inner], theirs[:, inner].float(), atol=1e-2)
    if new < old:
        assert resample(tone(old, new / 2 * 1.2), old, new)[:, inner].abs().max() < 1e-2  # no alias


def test_a_sound_of_the_right_rate_is_only_mixed() -> None:
    sound = np.stack([np.ones(100), np.zeros(100)])
    assert mono(sound, 16000, 16000).tolist() == [0.5] * 100
    assert len(mono(sound, 32000, 16000)) == 50
