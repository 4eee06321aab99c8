"""Opens the networks that turn samples into features, between which distances are measured."""

import io
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from scm_distill.artifacts.evaluation_record import ExtractorIdentity
from scm_distill.artifacts.files import sha256_of
from scm_distill.builtin import classifier
from scm_distill.errors import UserError, one_line
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.inputs import as_tensor
from scm_distill.evaluation.metrics import block_features

MODALITIES = ("image", "video", "audio")
INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)


def open_extractor(
    spec: str,
    device: torch.device | str = "cpu",
    modality: str = "image",
    *,
    revision: str | None = None,
    rate: int | None = None,
) -> Extractor:
    """Open `blocks`, `digits`, `inception`, `inception:PATH`, or a transformers model: a local folder or a Hub id.

    `modality` is image, video or audio; `rate` are the samples a second of the sounds to come. Raises UserError.
    """
    device = torch.device(device)
    if modality not in MODALITIES:
        raise ValueError(f"no modality {modality!r}")
    if spec == "blocks":
        text = "means and standard deviations in blocks of the pixels" if modality != "audio" else "the same of sound"
        identity = _identity("blocks", None, "none", text)
        return Extractor(identity, as_tensor, block_features, device)
    kind, _, path = spec.partition(":")
    if kind in ("digits", "inception"):
        if modality != "image":
            raise UserError(
                f"The extractor {kind} is for images.", f"Give --extractor a model of {modality}, or blocks."
            )
        return _digits(device) if spec == "digits" else _inception(path or None, device)
    from scm_distill.evaluation.pretrained import open_pretrained

    return open_pretrained(spec, device, modality, revision=revision, rate=rate)


def _identity(name: str, sha256: str | None, resize: str, features: str) -> ExtractorIdentity:
    return ExtractorIdentity(name=name, id=name, sha256=sha256, revision=None, resize=resize, features=features)


def _digits(device: torch.device) -> Extractor:
    """The packaged classifier of handwritten digits, 8x8, without its last layer."""
    body = classifier.trained()["body"].to(device)
    size = (classifier.SIZE, classifier.SIZE)

    def prepare(sample: Image.Image) -> Tensor:
        image = sample.convert("L")
        return as_tensor(image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BICUBIC))

    resize = "none at 8x8; else PIL bicubic to cover, centre crop 8x8"
    identity = _identity("digits", sha256_of(classifier.WEIGHTS), resize, "64 last features of the digit classifier")
    return Extractor(identity, prepare, body, device, batch=1024)


def _inception(path: str | None, device: torch.device) -> Extractor:
    """The InceptionV3 of the FID's authors, converted by torch-fidelity, as torchmetrics runs it.

    Raises UserError where packages are missing, or weights that cannot be loaded.
    """
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        file = Path(path).expanduser() if path else _downloaded_inception()
        weights = io.BytesIO()  # torch-fidelity unpickles whatever the file holds: it gets tensors only
        torch.save(torch.load(file, map_location="cpu", weights_only=True), weights)
        weights.seek(0)
        net = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    except ImportError as error:
        raise UserError(
            f"The extractor inception needs packages that are not installed: {error}",
            "pip install 'scm-distill[eval]', or choose another --extractor.",
        ) from error
    except Exception as error:  # a download or a damaged file, each with many kinds
        raise UserError(
            f"The weights of inception could not be loaded: {one_line(error, 240)}",
            f"Download {INCEPTION} and give --extractor inception:PATH.",
        ) from error
    net = net.to(device).requires_grad_(False)

    def prepare(sample: Image.Image) -> Tensor:
        return ((as_tensor(sample.convert("RGB")) + 1) * 127.5).round().byte()

    resize = "bilinear (antialiased) to 299x299, as torchmetrics"
    return Extractor(_identity("inception", sha256_of(file), resize, "pool3, 2048"), prepare, net, device)


def _downloaded_inception() -> Path:
    import torch_fidelity  # noqa: F401  # before 90 MB are downloaded for nothing

    file = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION.rpartition("/")[2]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION, str(file), hash_prefix="6726825d", progress=False)
    return file
