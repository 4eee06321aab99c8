"""Extractors: built-in ones, and tiny transformers models saved to disk."""

import hashlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from zoo.parts import clip_tokenizer

from scm_distill.builtin import classifier
from scm_distill.data import open_images
from scm_distill.data.pictures import to_images
from scm_distill.errors import UserError
from scm_distill.evaluation.extractors import open_extractor
from scm_distill.evaluation.features import Extractor, features
from scm_distill.evaluation.metrics import block_features
from scm_distill.evaluation.pretrained import open_clip_score

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture of 8-bit noise, (width, height)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def image_processor(name: str) -> Any:
    """The class that works with PIL alone: of its own name since transformers 5."""
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def saved(folder: Path, config: Any, *preprocessors: Any, model: Any = None) -> Path:
    """A model with random weights and its preprocessor, as save_pretrained writes them."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model = model or transformers.AutoModel.from_config(config)
    model.save_pretrained(folder)
    for part in preprocessors:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.Dinov2Config(**{**SMALL, "image_size": 28, "patch_size": 14, "mlp_ratio": 1})
    processor = image_processor("BitImageProcessor")(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    return saved(tmp_path_factory.mktemp("models") / "dinov2", config, processor)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_digits_classifier_reads_digits() -> None:
    images = open_images("builtin:digits/data.npz", (1, 8, 8))
    x_0, labels = images.__getitems__(range(0, len(images), 5))
    net = classifier.trained()
    assert float((net["head"](net["body"](x_0)).argmax(1) == labels).float().mean()) > 0.98
    extractor = open_extractor("digits")
    assert torch.equal(extractor(to_images(x_0)), net["body"](x_0))
    assert extractor.identity.sha256 == sha256(classifier.WEIGHTS)
    assert extractor(to_images(x_0[:3].repeat(1, 3, 4, 4))).shape == (3, 64)  # colours and other sizes are converted


def test_blocks_are_those_of_the_pixels() -> None:
    extractor = open_extractor("blocks")
    x_0 = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert torch.allclose(extractor(to_images(x_0)), block_features(x_0), atol=1 / 255)
    clip = [noise(i) for i in range(8)]
    assert open_extractor("blocks", modality="video")([clip, clip]).shape == (2, 2 * 3 * 64)
    assert open_extractor("blocks", modality="audio")([torch.zeros(2, 640), torch.zeros(2, 640)]).shape == (2, 256)
    with pytest.raises(ValueError, match="different sizes"):
        extractor([noise(0), noise(0, (8, 8))])


def test_features_go_in_batches_and_tell_how_many() -> None:
    told: list[int] = []
    extractor = open_extractor("blocks")
    extractor = Extractor(extractor.identity, extractor.prepare, extractor.net, extractor.device, batch=2)
    images = [noise(i) for i in range(5)]
    assert torch.equal(features(extractor, iter(images), told.append), extractor(images))
    assert told == [2, 4, 5]


def test_a_vision_model_gives_what_transformers_gives(dinov2: Path) -> None:
    extractor = open_extractor(str(dinov2))
    processor = image_processor("BitImageProcessor").from_pretrained(dinov2)
    model = transformers.AutoModel.from_pretrained(dinov2).eval()
    images = [noise(1), noise(2, (31, 77)), noise(3, (28, 28))]
    with torch.no_grad():
        theirs = model(**processor(images, return_tensors="pt")).pooler_output
    assert torch.allclose(extractor(images), theirs, atol=1e-4)
    assert extractor.identity.model_dump() == {
        "name": "Dinov2Model", "id": "dinov2", "sha256": sha256(dinov2 / "model.safetensors"), "revision": None,
        "resize": "PIL bicubic (antialiased), shortest side 32, centre crop 28x28", "features": "pooler output, 16",
    }  # fmt: skip


def test_a_pooler_without_weights_is_left_out(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=16)
    model = transformers.ViTModel(config, add_pooling_layer=False)
    processor = image_processor("ViTImageProcessor")(size={"height": 32, "width": 32})
    extractor = open_extractor(str(saved(tmp_path / "vit", config, processor, model=model)))
    assert extractor.identity.features == "class token of the last layer, 16"
    again = open_extractor(str(tmp_path / "vit"))
    assert torch.equal(extractor([noise(1)]), again([noise(1)]))


def test_a_video_model(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(**SMALL, image_size=32, patch_size=16, num_frames=4)
    processor = image_processor("VideoMAEImageProcessor")(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    folder = saved(tmp_path / "mae", config, processor)
    extractor = open_extractor(str(folder), modality="video")
    clip = [noise(i, (32, 32)) for i in range(10)]
    chosen = [clip[i] for i in (0, 3, 6, 9)]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = model(**processor(chosen, return_tensors="pt")).last_hidden_state.mean(1)
    assert torch.allclose(extractor([clip]), theirs, atol=1e-4)
    arrays = np.stack([np.asarray(frame, np.float32) / 255 for frame in clip])  # as other pipelines return clips
    assert torch.allclose(extractor([arrays, clip]), theirs.repeat(2, 1), atol=1e-4)
    assert extractor.identity.features == "mean of the last layer's tokens, 16"
    with pytest.raises(UserError, match="is a model of video, and the samples are image"):
        open_extractor(str(folder))


def test_an_audio_model(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(
        **SMALL, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
    )  # fmt: skip
    folder = saved(tmp_path / "wav2vec2", config, transformers.Wav2Vec2FeatureExtractor())
    extractor = open_extractor(str(folder), modality="audio", rate=16000)
    sound = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    normal = (sound.mean(0) - sound.mean()) / sound.mean(0).std()
    with torch.no_grad():
        theirs = model(torch.from_numpy(normal)[None]).last_hidden_state.mean(1)
    assert torch.allclose(extractor([sound]), theirs, atol=1e-3)
    assert torch.equal(extractor([sound.T]), extractor([sound]))
    other = open_extractor(str(folder), modality="audio", rate=44100)
    assert other.identity.resize == "mono, 16000 Hz by windowed sinc from 44100"
    assert other([sound]).shape == (1, 16)


def test_clap_cuts_long_sounds_at_the_same_place(tmp_path: Path) -> None:
    config = transformers.ClapConfig(
        audio_config={
            "patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
            "num_hidden_layers": 2, "enable_fusion": True, "spec_size": 64, "num_mel_bins": 16, "window_size": 4,
        },
        text_config=SMALL, projection_dim=8,
    )  # fmt: skip
    processor = transformers.ClapFeatureExtractor(feature_size=16, max_length_s=1, fft_window_size=256, hop_length=240)
    folder = saved(tmp_path / "clap", config, processor)
    extractor = open_extractor(str(folder), modality="audio", rate=48000)
    sound = np.random.default_rng(0).standard_normal((1, 100_000)).astype(np.float32)
    first = extractor([sound])
    assert first.shape == (1, 8)
    assert torch.equal(first, extractor([sound]))
    assert torch.equal(first, extractor([sound[:, :48000]]))
    assert extractor.identity.resize == "mono, 48000 Hz as it is, the first 1 s"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip"
    config = transformers.CLIPConfig(
        text_config={**SMALL, "vocab_size": 600, "max_position_embeddings": 16, "eos_token_id": 1},
        vision_config={**SMALL, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    return saved(
        folder, config, clip_tokenizer(),
        image_processor("CLIPImageProcessor")(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )  # fmt: skip


def test_clip_score_against_the_models_own_logits(clip: Path) -> None:
    score = open_clip_score(str(clip))
    images, prompts = [noise(1), noise(2)], ["a cat", "a dog on a bench"]
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    processor = image_processor("CLIPImageProcessor").from_pretrained(clip)
    tokens = transformers.AutoTokenizer.from_pretrained(clip)(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**tokens, **processor(images, return_tensors="pt"))
    cosine = (out.logits_per_image / model.logit_scale.exp()).diagonal()
    assert torch.allclose(score(images, prompts).float(), 100 * cosine.clamp_min(0), atol=1e-2)
    of_a_clip = score([[images[0], images[0]]], prompts[:1])  # the mean over frames
    assert torch.allclose(of_a_clip, score(images[:1], prompts[:1]))
    assert score.identity.id == "clip"
    assert open_extractor(str(clip)).identity.features == "image embedding, 8"


def test_a_hub_id_is_known_by_its_commit(tmp_path: Path, dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, repo = "a" * 40, tmp_path / "models--org--tiny"
    shutil.copytree(dinov2, repo / "snapshots" / commit)  # as a download leaves it
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    extractor = open_extractor("org/tiny")
    assert (extractor.identity.id, extractor.identity.revision) == ("org/tiny", commit)
    with pytest.raises(UserError, match="could not be had from the Hub"):
        open_extractor("org/other")
    with pytest.raises(UserError, match="could not be had from the Hub"):
        open_extractor("org/tiny", revision="v2")


def test_errors_say_what_to_do(tmp_path: Path, dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="There is no extractor no/such/folder"):
        open_extractor("no/such/folder")
    with pytest.raises(UserError, match="is for images"):
        open_extractor("digits", modality="audio")
    with pytest.raises(UserError, match="needs a CLIPModel"):
        open_clip_score(str(dinov2))
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((dinov2 / name).read_bytes())
    with pytest.raises(UserError, match=r"has no preprocessor_config.json"):
        open_extractor(str(bare))
    (bare / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="could not be used"):
        open_extractor(str(bare))
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no model.safetensors"):
        open_extractor(str(bare))


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_inception_says_what_to_install() -> None:
    with pytest.raises(UserError) as caught:
        open_extractor("inception")
    assert "pip install 'scm-distill[eval]'" in caught.value.fix
