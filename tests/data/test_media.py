"""Captioned folders: the right values in the right shape, and one clear error for everything that is wrong."""

import gc
import json
import warnings
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scm_distill.data import media
from scm_distill.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of files that are left open: see the test of that


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_gif(path: Path, frames: int, size: int = 16) -> Path:
    """Frame i is of the grey 40 i."""
    pictures = [Image.new("RGB", (size, size), (40 * i,) * 3) for i in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int = 16, width: int = 2) -> Path:
    """`samples` (T, C) of integers."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())
    return path


@pytest.mark.parametrize("suffix", media.IMAGES)
def test_an_image(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 16, 3), (255, 0, 51), np.uint8)).save(tmp_path / f"a{suffix}", lossless=True)
    x = media.image(tmp_path / f"a{suffix}", (3, 8, 8))
    assert (x.shape, x.dtype) == ((3, 8, 8), torch.float32)
    assert torch.allclose(x.mean((1, 2)), torch.tensor([1.0, -1.0, -0.6]), atol=0.03)


def test_an_image_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = noise(8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(media.image(tmp_path / "a.png", (3, 8, 8)), expected, atol=1e-6)
    assert media.image(tmp_path / "a.png", (1, 8, 8)).shape == (1, 8, 8)


def test_a_clip_is_its_first_frames_in_order(tmp_path: Path) -> None:
    x = media.clip(write_gif(tmp_path / "a.gif", 5), (3, 4, 8, 8))
    assert x.shape == (3, 4, 8, 8)
    assert torch.allclose(x.mean((0, 2, 3)), torch.tensor([0.0, 40, 80, 120]) / 127.5 - 1, atol=0.02)


def test_a_grey_clip_of_a_webp(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (60 * i,) * 3) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    x = media.clip(tmp_path / "a.webp", (1, 3, 8, 8))
    assert torch.allclose(x.mean((0, 2, 3)), torch.tensor([0.0, 60, 120]) / 127.5 - 1, atol=0.02)


@pytest.mark.parametrize(("width", "top"), [(2, 2**15), (4, 2**31)])
def test_a_stereo_sound(width: int, top: int, tmp_path: Path) -> None:
    left = np.array([0, top // 2, -top, top - 1, 0, 0])
    x = media.sound(write_wav(tmp_path / "a.wav", np.stack([left, 0 * left], 1), width=width), (2, 5), 16)
    assert x.dtype == torch.float32
    assert torch.allclose(x, torch.tensor([[0, 0.5, -1, 1, 0], [0.0] * 5]), atol=1e-4)


def test_channels_of_a_sound_are_repeated_or_left_away(tmp_path: Path) -> None:
    mono = media.sound(write_wav(tmp_path / "m.wav", np.arange(8)[:, None]), (2, 8), 16)
    assert torch.equal(mono[0], mono[1])
    pair = np.stack([np.arange(8), -np.arange(8)], 1)
    one = media.sound(write_wav(tmp_path / "s.wav", pair), (1, 8), 16)
    assert torch.equal(one[0], mono[0])


def test_captions_beside_their_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f" a photo of {name}\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("not a file of this kind")
    found = media.find(tmp_path, media.IMAGES)
    assert [file.name for file in found.files] == ["a.png", "b.png"]
    assert found.captions == ["a photo of a", "a photo of b"]
    assert (found.classes, found.labels) == ([], [-1, -1])


def test_captions_in_a_list_of_their_own_and_the_list_wins(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.PNG")
    (tmp_path / "b.txt").write_text("other")
    rows = [{"file_name": "in/a.png", "text": "ein Kätzchen"}, {"file_name": "b.PNG", "text": "b"}]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    assert media.find(tmp_path, media.IMAGES).captions == ["b", "ein Kätzchen"]


def test_a_folder_without_captions_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert media.find(tmp_path, media.IMAGES).captions is None


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
    found = media.find(tmp_path, media.IMAGES)
    assert (found.classes, found.labels) == (["cat", "dog"], [0, 0, 1, 1])


def test_numbered_classes_count_as_numbers(tmp_path: Path) -> None:
    for i in range(11):
        (tmp_path / str(i)).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / str(i) / "a.png")
    found = media.find(tmp_path, media.IMAGES)
    assert all(file.parent.name == str(label) for file, label in zip(found.files, found.labels, strict=True))


def test_prompts_are_the_lines_that_are_not_empty(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("  a cat \n\nein Käfer\n \n", encoding="utf-8")
    assert media.read_prompts(str(tmp_path / "p.txt")) == ["a cat", "ein Käfer"]


def empty(folder: Path) -> None:
    (folder / "a.txt").write_text("a caption, and nothing that it is of")
    media.find(folder, media.IMAGES)


def one_caption_missing(folder: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("a")
    media.find(folder, media.IMAGES)


def no_list(text: str) -> Callable[[Path], None]:
    def case(folder: Path) -> None:
        Image.new("RGB", (4, 4)).save(folder / "a.png")
        (folder / "metadata.jsonl").write_text(text)
        media.find(folder, media.IMAGES)

    return case


def caption_of_another_encoding(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    (folder / "a.txt").write_bytes("Kätzchen".encode("latin-1"))
    media.find(folder, media.IMAGES)


def few_frames(folder: Path) -> None:
    media.clip(write_gif(folder / "a.gif", 2), (3, 3, 8, 8))


def wrong_rate(folder: Path) -> None:
    media.sound(write_wav(folder / "a.wav", np.zeros((8, 1)), rate=44100), (1, 8), 48000)


def eight_bits(folder: Path) -> None:
    media.sound(write_wav(folder / "a.wav", np.zeros((8, 1)), width=1), (1, 8), 16)


def too_short(folder: Path) -> None:
    media.sound(write_wav(folder / "a.wav", np.zeros((8, 2))), (2, 9), 16)


def damaged(name: str, read: Callable[[Path], object]) -> Callable[[Path], None]:
    def case(folder: Path) -> None:
        (folder / name).write_bytes(b"nothing of the kind" * 9)
        read(folder / name)

    return case


def cut(name: str, share: float) -> Callable[[Path], None]:
    """A file of noise that ends too early."""

    def case(folder: Path) -> None:
        path = folder / name
        if name.endswith(".wav"):
            write_wav(path, np.arange(128).reshape(64, 2))
        else:
            pictures = [Image.fromarray(picture) for picture in noise(3, 16, 16, 3)]
            pictures[0].save(path, **({"save_all": True, "append_images": pictures[1:]} if name == "a.gif" else {}))
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        READ[path.suffix](path)

    return case


def broken_chunk(folder: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(folder / "a.png")
    content = bytearray((folder / "a.png").read_bytes())
    content[content.index(b"IDAT") - 4 : content.index(b"IDAT")] = (100).to_bytes(4, "big")
    (folder / "a.png").write_bytes(content)
    media.image(folder / "a.png", (3, 8, 8))


def huge(folder: Path) -> None:
    Image.new("L", (4, 4)).save(folder / "a.bmp")
    content = bytearray((folder / "a.bmp").read_bytes())
    content[18:26] = (60000).to_bytes(4, "little") * 2
    (folder / "a.bmp").write_bytes(content)
    media.image(folder / "a.bmp", (3, 8, 8))


READ: dict[str, Callable[[Path], object]] = {
    ".png": lambda path: media.image(path, (3, 8, 8)),
    ".jpg": lambda path: media.image(path, (3, 8, 8)),
    ".gif": lambda path: media.clip(path, (3, 3, 8, 8)),
    ".mp4": lambda path: media.clip(path, (3, 3, 8, 8)),
    ".wav": lambda path: media.sound(path, (2, 64), 16),
}
BAD = {
    "no files": (empty, "holds no file of .png"),
    "one caption missing": (one_caption_missing, "b.png has no caption, but others have"),
    "a list that is no JSON": (no_list("a cat\n"), "metadata.jsonl cannot be read"),
    "a list of lists": (no_list("[1]\n"), "metadata.jsonl cannot be read"),
    "a list without texts": (no_list('{"file_name": "a.png"}\n'), "metadata.jsonl cannot be read"),
    "too few frames": (few_frames, "a.gif has 2 frames, and the teacher's clips 3"),
    "wrong rate": (wrong_rate, "44100 Hz and 16 bits, and the teacher wants 48000 Hz"),
    "eight bits": (eight_bits, "16 Hz and 8 bits"),
    "too short": (too_short, "lasts 8 samples, and the teacher's sounds 9"),
    "no image": (damaged("a.png", READ[".png"]), "a.png cannot be decoded"),
    "no clip": (damaged("a.gif", READ[".gif"]), "a.gif cannot be decoded"),
    "no sound": (damaged("a.wav", READ[".wav"]), "a.wav cannot be decoded"),
    "half an image": (cut("a.png", 0.5), "a.png cannot be decoded"),
    "half a photo": (cut("a.jpg", 0.5), "a.jpg cannot be decoded"),
    "a fifth of a clip": (cut("a.gif", 0.2), "a.gif"),
    "a tenth of a sound": (cut("a.wav", 0.1), "a.wav cannot be decoded"),
}
TRACEBACKS = {
    "a list of numbers": (no_list('{"file_name": "a.png", "text": 3}\n'), "metadata.jsonl cannot be read"),
    "a caption in latin-1": (caption_of_another_encoding, "a.txt"),
    "no movie": (damaged("a.mp4", READ[".mp4"]), "a.mp4 cannot be decoded"),
    "half a clip": (cut("a.gif", 0.5), "a.gif"),
    "half a sound": (cut("a.wav", 0.505), "a.wav"),
    "a broken chunk": (broken_chunk, "a.png cannot be decoded"),
    "a bomb": (huge, "a.bmp cannot be decoded"),
}


def error_of(make: Callable[[Path], None], folder: Path) -> tuple[type[Exception] | None, str, str]:
    """What it raises, without the traceback that would keep its files open."""
    try:
        make(folder)
    except UserError as error:
        return UserError, error.problem, error.fix
    except Exception as error:
        return type(error), str(error), ""
    return None, "", ""


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_clear_error(case: str, tmp_path: Path) -> None:
    make, say = BAD[case]
    kind, problem, fix = error_of(make, tmp_path)
    assert (kind, say in problem, bool(fix)) == (UserError, True, True), problem


@pytest.mark.parametrize("case", TRACEBACKS)
def test_worse_data_is_one_clear_error(case: str, tmp_path: Path) -> None:
    make, say = TRACEBACKS[case]
    kind, problem, fix = error_of(make, tmp_path)
    assert (kind, say in problem, bool(fix)) == (UserError, True, True), problem


def test_files_are_closed(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "a.gif", 3)
    gc.collect()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        media.clip(path, (3, 3, 8, 8))
        gc.collect()
    assert not [w for w in seen if w.category is ResourceWarning]


@pytest.mark.parametrize(
    ("content", "say"), [(None, "cannot be read"), (b"\n  \n", "holds no prompts"), (b"\xff\xfe", "cannot be read")]
)
def test_prompts_that_are_none(content: bytes | None, say: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(UserError) as caught:
        media.read_prompts(str(tmp_path / "p.txt"))
    assert say in caught.value.problem
