"""Which pipeline classes of diffusers train and export, as a table; each is built from diffusers' own tests.

python tests/benchmarks/classes.py CHECKOUT                      # a checkout of huggingface/diffusers
python tests/benchmarks/classes.py CHECKOUT --only FluxPipeline  # again, in the same table

Every class that is driven by a prompt, a class label or noise goes through reading and verification, the check of its
derivative, three steps and export with the two-step call of stock diffusers, with guidance where it has one; those
with perturbed attention by the call that leaves it out, pag_scale 0. What its tests fetch from the Hub is made here
(hub_parts.py); a class whose test cannot be built is taken from tests/zoo, and listed as one that does not build where
it is not there either. Classes run one after another in a process each; the table is written after each, and one that
is in it is not run again.
"""

import argparse
import importlib
import inspect
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import torch

import scm_distill
from scm_distill import UserError
from scm_distill.teachers.stock_call import RESERVED

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from hub_parts import Missing, characters, made_here, packages

KINDS: dict[str, str] = {
    "text to image": """AuraFlow BriaFibo2 BriaFibo Bria Chroma CogView3Plus CogView4 Cosmos2TextToImage DreamLite
        ErnieImage Flux2Klein Flux2 Flux GlmImage HiDreamImage HunyuanDiTPAG HunyuanDiT HunyuanImage IF Ideogram4
        Kandinsky3 Kandinsky5T2I KandinskyCombined Kandinsky KandinskyV22Combined KandinskyV22 KolorsPAG Kolors Krea2
        LDMTextToImage LongCatImage Lumina2 Lumina NucleusMoEImage OmniGen OvisImage PRX PRXPixel PixArtAlpha
        PixArtSigmaPAG PixArtSigma QwenImage21 QwenImage SanaPAG Sana StableDiffusion3PAG StableDiffusion3
        StableDiffusionPAG StableDiffusion StableDiffusionXLPAG StableDiffusionXL StableUnCLIP ZImage""",
    "text to video": """Allegro AnimateDiffPAG AnimateDiff AnimateDiffSDXL AnyFlowFAR CogVideoX Cosmos2_5_PredictBase
        Cosmos3Omni CosmosTextToWorld EasyAnimate Helios HunyuanVideo15 HunyuanVideo Kandinsky5T2V Kandinsky6TI2VA
        LTX2DFR LTX2 LTX Latte Mochi MotifVideo SanaVideo SkyReelsV2DiffusionForcing SkyReelsV2 Wan""",
    "text to audio": "AceStep AudioLDM2 LongCatAudioDiT StableAudio3 StableAudio",
    "unconditional": "DDIM DDPM RFD4Proteina",
    "class": "DiT",
}
CLASSES = {f"{name}Pipeline": kind for kind, names in KINDS.items() for name in names.split()}
ZOO = {  # families of tests/zoo, for the classes whose test cannot be built here
    "DDIMPipeline": "ddim",
    "DDPMPipeline": "ddpm",
}
OWN = {"safety_checker"}  # a mock in the tests; the pipeline makes one of its own
EXPORTED, REFUSED, FAULT, UNBUILT = "trained and exported", "refused", "fault", "does not build here"
PROMPTS = ["a cat", "a dog"]


def tests_of(checkout: Path, name: str) -> Iterator[Any]:
    """The test cases of diffusers for the pipeline class `name`, instantiated."""
    wrapped = f"{name}(Wrapper)?|{name.removesuffix('Pipeline')}Wrapper"  # Cosmos wraps its safety checker
    pattern = re.compile(rf"pipeline_class\s*=\s*({wrapped})\b")
    for path in sorted(checkout.glob("tests/pipelines/**/test_*.py")):
        if not pattern.search(path.read_text(encoding="utf-8")):
            continue
        module = importlib.import_module(".".join(path.relative_to(checkout).with_suffix("").parts))
        torch.use_deterministic_algorithms(False)  # the tests turn it on when they are imported
        for case in vars(module).values():
            kind = getattr(case, "pipeline_class", None) if isinstance(case, type) else None
            known = re.fullmatch(wrapped, getattr(kind, "__name__", ""))
            if known and case.__module__ == module.__name__ and hasattr(case, "get_dummy_components"):
                yield case("get_dummy_components") if "methodName" in inspect.signature(case).parameters else case()


@torch.no_grad()
def awaken(pipeline: Any) -> None:
    """Add noise to every constant parameter of the denoiser and what feeds it: a layer of zeros would prove nothing."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and type(part).__module__.startswith("diffusers.") and "vae" not in name:
            for parameter in part.parameters():
                if parameter.numel() > 1 and parameter.is_floating_point() and parameter.std() < 1e-6:
                    parameter.add_(0.1 * torch.randn_like(parameter))


def fit_tokenizers(pipeline: Any) -> None:
    """Put a tokenizer of as many tokens as the text encoder knows in the place of one that has more."""
    for name, tokenizer in pipeline.components.items():
        encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
        if not name.startswith("tokenizer") or tokenizer is None or not isinstance(encoder, torch.nn.Module):
            continue
        known = getattr(encoder.config.get_text_config(), "vocab_size", None)
        if known is not None and known < len(tokenizer):
            pipeline.register_modules(**{name: characters(known)})


def plain(pipeline: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arguments of a test's call, those that a recipe can hold as teacher.call."""
    known = inspect.signature(pipeline.__call__).parameters
    short = {n: 3 for n in ("num_frames", "video_length") if n in known and n not in inputs}  # and not 16 of them
    inputs = {**short, **inputs, "pag_scale": 0.0}
    ours = {*RESERVED, "prompt_2", "output_type", "return_dict"}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in inputs.items()
        if name in known
        and name not in ours
        and _writable(value)
        and "prompt" not in name
        and value != known[name].default
    }


def _writable(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_writable(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)


def build(checkout: Path, name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Save a tiny pipeline of the class `name` to `folder`; the arguments of its call, and where it is from.

    Raises Missing with the reason.
    """
    if not hasattr(diffusers, name):
        raise Missing(f"diffusers {diffusers.__version__} has no such class")
    why = "no test of it in this checkout"
    cases = tests_of(checkout, name)
    while True:
        try:
            if (case := next(cases, None)) is None:
                break
            with made_here(), torch.random.fork_rng():
                torch.random.manual_seed(0)
                components = case.get_dummy_components()
                pipeline = getattr(diffusers, name)(**{k: None if k in OWN else v for k, v in components.items()})
                fit_tokenizers(pipeline)
                awaken(pipeline)
                pipeline.save_pretrained(str(folder))
            wanted = inspect.signature(case.get_dummy_inputs).parameters
            inputs = case.get_dummy_inputs("cpu") if "device" in wanted else case.get_dummy_inputs()
            return plain(pipeline, inputs), "its test in diffusers"
        except Missing as error:
            why = f"{error} is on the Hub only"
        except Exception as error:
            why = f"its test cannot be built: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
    if name not in ZOO:
        raise Missing(why)
    family = zoo.load_all()[ZOO[name]]
    family.pipeline().save_pretrained(str(folder))
    return dict(family.call), "tests/zoo"


def recipe(folder: Path, call: Mapping[str, Any], facts: Any, out: Path, scale: float | None) -> dict[str, Any]:
    """Three steps of the teacher in `folder`."""
    pixels = facts.modality is None
    if not pixels:
        (out / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    prompts = {"prompts": str(out / "prompts.txt")} if facts.conditions.startswith("prompt") else {}
    data = {"source": "builtin:digits/data.npz"} if pixels else {"source": "teacher", "samples": 4, **prompts}
    return {
        "teacher": {"repo": str(folder), "call": dict(call)},
        "data": data,
        "guidance": {} if scale is None else {"scale": scale},
        "objective": {"warmup_steps": 100, **facts.recipe.get("objective", {})},
        "adapt": {"prefit_steps": 2, "reclock": False if pixels else "auto"},
        "train": {
            "steps": 3, "batch_size": 32 if pixels else 2, "evaluate_samples": 2, "checkpoint_every": 3,
            "evaluate_every": 3, "device": "cpu", "stop_if_worse": False,
        },
        "sampler": {"teacher_steps": 2},
        "export": {"t_mid": [1.1], "samples": 2, "check_first": False},  # the export itself checks the same
    }  # fmt: skip


def measured(folder: Path, call: dict[str, Any], out: Path) -> dict[str, Any]:
    """What inspecting, training and exporting the pipeline in `folder` showed. Raises what they raise."""
    facts = scm_distill.inspect(folder, overrides={"teacher.call": call}, export_check=False)
    verified = {k: v for k, v in (facts.verified or {}).items() if k != "time map"}
    row: dict[str, Any] = {
        "prediction": facts.prediction,
        "guidance": facts.guidance or "none",
        "velocity against the stock call": max(verified.values(), default=None),
        "tangent against differences": facts.tangent.difference if facts.tangent.exact else facts.tangent.why,
    }
    guided = "guidance" in facts.recipe or str(facts.guidance).endswith("told the scale")
    row["guidance.scale"] = 3.0 if guided else None
    done = scm_distill.train(recipe(folder, call, facts, out, row["guidance.scale"]), out=out / "run")
    row["two stock steps against ours"] = float(f"{done.stock_difference:.2e}")
    return row


def attempt(checkout: Path, name: str) -> dict[str, Any]:
    """The row of the class `name`."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        try:
            call, origin = build(checkout, name, home / "teacher")
        except Missing as error:
            return {"result": UNBUILT, "why": str(error)}
        found: dict[str, Any] = {"from": origin, "call": call}
        try:
            return {"result": EXPORTED, **found, **measured(home / "teacher", call, home)}
        except UserError as error:
            problem = error.problem.replace(str(home / "teacher"), "teacher")
            return {"result": REFUSED if error.code == 2 else FAULT, **found, "why": problem}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            if os.environ.get("TRACEBACK"):
                traceback.print_exc()
            why = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            return {"result": FAULT, **found, "why": why[:400]}


def isolated(checkout: Path, name: str, limit: float) -> dict[str, Any]:
    """As `attempt`, in a process of its own that may take `limit` seconds."""
    context = multiprocessing.get_context("fork")  # diffusers is imported already
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(attempt(checkout, name)))
    child.start()
    sender.close()
    try:
        row = receiver.recv() if receiver.poll(limit) else {"result": FAULT, "why": f"not done after {limit:g} s"}
    except EOFError:
        row = {"result": FAULT, "why": "its process died"}
    child.kill()
    child.join()
    return dict(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(CLASSES), default=[], metavar="CLASS")
    parser.add_argument("--again", nargs="*", choices=[EXPORTED, REFUSED, FAULT, UNBUILT], default=[])
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a class may take")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.checkout))
    packages()
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = json.loads(asked.out.read_text())["classes"] if asked.out.exists() else {}
    for name in asked.only or [n for n in CLASSES if n not in rows or rows[n]["result"] in asked.again]:
        started = time.monotonic()
        row = {"kind": CLASSES[name], **isolated(asked.checkout, name, asked.limit)}
        rows[name] = {**row, "on": date.today().isoformat()}
        write(asked.out, rows)
        print(f"{name}: {row['result']} in {time.monotonic() - started:.0f} s; {row.get('why', '')}", flush=True)
    print(dict(Counter(row["result"] for row in rows.values())), f"of {len(CLASSES)}")


def write(out: Path, rows: Mapping[str, Any]) -> None:
    """The table, in the order of CLASSES; what has not been run is counted as such."""
    ordered = {name: rows[name] for name in CLASSES if name in rows}
    counts = Counter(row["result"] for row in ordered.values())
    if missing := len(CLASSES) - len(ordered):
        counts["not run"] = missing
    facts = {
        "date": date.today().isoformat(),
        "machine": "2 CPU cores, no GPU",
        "versions": {package: version(package) for package in ("torch", "diffusers", "transformers")},
        "count": dict(counts),
        "classes": ordered,
    }
    out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
