"""Pushing to a Hub on the loopback device, by the real client: what arrives, what is sent again, what is refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hub import ADA, BOB, Hub, student
from hub.pushing import Said, push, refusal
from hub.store import File
from huggingface_hub import constants, snapshot_download
from safetensors.torch import load_file

from scm_distill import config
from scm_distill.artifacts.layout import local_student
from scm_distill.publish import card as model_card
from scm_distill.publish import staging, upload
from scm_distill.publish.hub import Client

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PUBLISHED = {
    "README.md", "LICENSE", "model_index.json", "scm_distill.json", "t_mid_search.json", "samples/0.png",
    "scheduler/scheduler_config.json", "unet/config.json", WEIGHTS, "training/config.yaml", "training/metrics.jsonl",
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client's own uploads


def same_weights(folder: Path, run: Path) -> None:
    theirs, ours = load_file(folder / WEIGHTS), load_file(run / "export" / WEIGHTS)
    assert all((theirs[name] == ours[name]).all() for name in ours)


@pytest.mark.parametrize("way", [{}, {"part": 40_000}, {"xet": True}], ids=["basic", "multipart", "xet"])
def test_a_push_a_second_one_and_one_changed_file(
    start: Callable[..., Hub], run: Path, tmp_path: Path, way: dict
) -> None:
    hub = start(**way)
    first = push(hub, run)
    assert (first.url, first.private) == (f"{hub.url}/ada/student", False)
    assert set(first.uploaded) == set(first.files) == PUBLISHED
    assert set(hub.files("ada/student")) == PUBLISHED | {".gitattributes"}
    puts = hub.seen("PUT")
    assert {"basic": 2, "multipart": 3, "xet": 0}["xet" if "xet" in way else "multipart" if way else "basic"] <= len(
        puts
    )
    copy = Path(snapshot_download("ada/student", endpoint=hub.url, token=False, local_dir=tmp_path / "copy"))
    same_weights(copy, run)

    hub.requests.clear()
    said = Said()
    again = push(hub, run, report=said)
    assert (again.commit, again.uploaded, again.bytes) == (first.commit, [], 0)
    assert [line for line in said.lines if "nothing to upload" in line]
    assert not hub.seen("PUT")
    assert not hub.seen("POST")

    student.metrics(run, 0.5)
    third = push(hub, run)
    assert third.uploaded == ["training/metrics.jsonl"]
    assert third.commit != first.commit
    assert not hub.seen("PUT")
    (lines,) = [r.body.splitlines() for r in hub.requests if "/commit/" in r.path]
    assert [json.loads(line)["value"].get("path") for line in lines[1:]] == ["training/metrics.jsonl"]


def test_nothing_local_and_no_token_is_published(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    student.evaluation(
        run, teacher=str(run / "secret"), data="/data/secret/set", notes=["see /scratch/jane/data"],
        extractor={"name": "own", "id": str(run / "secret/net"), "sha256": "0", "resize": "none"},
    )  # fmt: skip
    push(hub, run)
    stored = b"\n".join(content or b"" for content in hub.files("ada/student").values())
    stored += b"".join(request.body for request in hub.requests)
    for private in (str(run.parent), str(Path.home()) + "/", "secret/", ADA.token):
        assert private.encode() not in stored, private
    recipe = config.parse(yaml.safe_load(hub.files("ada/student")["training/config.yaml"] or b""))
    assert (recipe.teacher.repo, recipe.teacher.config) == ("teacher", "parts")
    assert (recipe.data.source, recipe.data.prompts) == ("photos", "prompts.txt")
    assert recipe.guidance.negative_prompt == "/bad, ugly/deformed"
    measured = json.loads(hub.files("ada/student")["eval.json"] or b"")
    assert (measured["teacher"], measured["data"], measured["extractor"]["id"]) == ("secret", "set", "net")
    assert measured["notes"] == ["see data"]


def test_a_licence_may_name_folders(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    (run / "export" / "LICENSE").write_text("see /usr/share/common-licenses/Apache-2.0\n")
    assert "LICENSE" in push(hub, run).uploaded


def test_a_config_that_is_no_recipe_is_refused(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    (run / "config.yaml").write_text("wandb: {key: secret}\n")
    error = refusal(hub, run)
    assert "config.yaml" in error.problem
    assert "no recipe" in error.problem
    assert not hub.repos


@pytest.mark.parametrize("leak", ["hf_" + "x" * 34, "api_org_" + "x" * 34, "{run}/export", "of /scratch/jane/a"])
def test_a_text_that_would_leak_is_refused_before_anything_is_made(
    start: Callable[..., Hub], run: Path, leak: str
) -> None:
    hub = start()
    (run / "export" / "unet" / "config.json").write_text(json.dumps({"note": leak.format(run=run)}))
    error = refusal(hub, run)
    assert "unet/config.json" in error.problem
    assert leak[:8] not in error.problem or "/" in leak
    assert not hub.repos


def test_a_token_in_utf_16_is_found_too(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    (run / "export" / "LICENSE").write_text("hf_" + "x" * 34, encoding="utf-16")
    assert "LICENSE holds an access token" in refusal(hub, run).problem
    assert not hub.repos


def test_no_folder_outside_the_export_is_a_component(run: Path) -> None:
    index = run / "export" / "model_index.json"
    outside = {name: ["diffusers", "UNet2DModel"] for name in ("", ".", "..", "../samples", "/etc", str(run))}
    index.write_text(json.dumps({**outside, **json.loads(index.read_text())}))
    assert staging.components(run / "export") == ["scheduler", "unet"]


def test_damaged_decoration_is_left_out_and_named(start: Callable[..., Hub], run: Path) -> None:
    hub, said = start(), Said()
    (run / "export/samples/0.png").write_bytes(b"\x89PNG")
    (run / "export/t_mid_search.json").write_text("{")
    assert set(push(hub, run, report=said).uploaded) == PUBLISHED - {"samples/0.png", "t_mid_search.json"}
    assert sum("left out" in line for line in said.lines) == 2
    assert b"samples/0.png" not in (hub.files("ada/student")["README.md"] or b"").partition(b"# Two-step")[0]


def test_a_card_on_the_hub_that_is_no_text_is_refused(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    push(hub, run)
    repo, content = hub.repos["ada/student"], "Mine.".encode("utf-16")
    repo.add("main", "by hand", {**repo.at("main").files, "README.md": File(len(content), content)})
    assert "README.md of ada/student on the Hub is no UTF-8 text" in refusal(hub, run).problem


@pytest.mark.parametrize("xet", [False, True])
def test_a_pull_request_leaves_main_as_it_is(start: Callable[..., Hub], run: Path, xet: bool) -> None:
    hub = start(xet=xet)
    push(hub, run)
    main = hub.repos["ada/student"].refs["main"]
    changed = student.search(run, 1.1)
    proposed = push(hub, run, user=BOB, create_pr=True)
    assert proposed.url == f"{hub.url}/ada/student/discussions/1"
    assert hub.repos["ada/student"].refs == {"main": main, "refs/pr/1": proposed.commit}
    assert hub.files("ada/student", "refs/pr/1")["t_mid_search.json"] == changed


def test_a_revision_is_a_branch_of_its_own(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    pushed = push(hub, run, revision="two/steps")
    assert pushed.url == f"{hub.url}/ada/student/tree/two/steps"
    assert set(hub.files("ada/student")) == {".gitattributes"}
    assert set(hub.files("ada/student", "two/steps")) > PUBLISHED
    assert not push(hub, run, revision="two/steps").uploaded
    assert "--create-pr" in refusal(hub, run, revision="two/steps", create_pr=True).problem
    assert "no such revision" in refusal(hub, run, revision="refs/pr/7").problem


def test_a_private_repo_is_hidden_and_stays_private(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    student.tell(run, license={}, base_model="a folder", hub_id=None)  # private: nobody needs a licence yet
    assert push(hub, run, private=True).private
    assert hub.repos["ada/student"].private
    assert not push(hub, run).uploaded  # still private, so still without a licence
    assert "no repo ada/student" in refusal(hub, run, user=BOB, create_pr=True).problem
    push(hub, run, "ada/open", license="mit")
    assert "public" in refusal(hub, run, "ada/open", private=True).problem


def test_the_licence_is_the_teachers_or_the_given_one(start: Callable[..., Hub], run: Path) -> None:
    hub = start()

    def card(repo: str) -> dict:
        return yaml.safe_load((hub.files(repo)["README.md"] or b"").decode().split("---")[1])

    push(hub, run, "ada/one")
    assert card("ada/one")["license"] == "apache-2.0"
    said = Said()
    push(hub, run, "ada/two", license="cc-by-nc-4.0", report=said)
    assert card("ada/two")["license"] == "cc-by-nc-4.0"
    assert any("commercial" in line for line in said.lines)
    assert json.loads(hub.files("ada/two")["scm_distill.json"] or b"")["facts"]["license"] == {
        "license": "cc-by-nc-4.0"
    }
    push(hub, run, "ada/three", license="own-license=https://example.com/terms")
    named = {key: value for key, value in card("ada/three").items() if key.startswith("license")}
    assert named == {"license": "other", "license_name": "own-license", "license_link": "https://example.com/terms"}
    assert "name and an address" in refusal(hub, run, "ada/four", license="other").problem

    student.tell(run, license={}, hub_id=None, base_model="a folder")
    error = refusal(hub, run, "ada/four")
    assert (error.code, "--license" in error.fix) == (2, True)
    error = refusal(hub, run, "ada/four", license="never-heard-of")
    assert (error.code, "front matter" in error.problem) == (1, True)
    assert "ada/four" not in hub.repos

    push(hub, run, "bob/teacher", BOB, license="cc-by-nc-4.0")  # the licence of a teacher that only the Hub knows
    student.tell(run, license={}, hub_id="bob/teacher", base_model="bob/teacher")
    hub.repos["bob/teacher"].gated = True
    said = Said()
    push(hub, run, "ada/five", report=said)
    assert card("ada/five")["license"] == "cc-by-nc-4.0"
    assert sum("gated" in line or "commercial" in line for line in said.lines) == 2


def test_a_dry_run_needs_no_token_and_asks_nobody(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    planned = Client(hub.url).plan(local_student(str(run)), "ada/student")
    assert (set(planned.files), planned.user, planned.warnings) == (PUBLISHED, None, [])
    assert 'from_pretrained("ada/student")' in planned.card
    student.tell(run, license={}, hub_id=None)
    planned = Client(hub.url).plan(local_student(str(run / "export")), "ada/student")
    assert any("--license" in warning for warning in planned.warnings)
    assert not hub.requests


def test_what_users_wrote_into_the_card_stays(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    push(hub, run)
    client = Client(hub.url, ADA.token)
    text = (hub.files("ada/student")["README.md"] or b"").decode()
    client.api.upload_file(
        path_or_fileobj=(text + "\nMy own words.\n").encode(), path_in_repo="README.md", repo_id="ada/student"
    )
    client.api.upload_file(path_or_fileobj=b"theirs", path_in_repo="samples/mine.png", repo_id="ada/student")
    assert not push(hub, run).uploaded
    student.tell(run, t_mid=1.1)
    assert push(hub, run).uploaded == ["README.md", "scm_distill.json"]
    assert "My own words." in (hub.files("ada/student")["README.md"] or b"").decode()
    assert hub.files("ada/student")["samples/mine.png"] == b"theirs"


def test_shards_of_an_earlier_push_go(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    weights, old = run / "export" / WEIGHTS, run / "export" / "unet/diffusion_pytorch_model-00001-of-00001.safetensors"
    weights.rename(old)
    push(hub, run)
    old.rename(weights)
    push(hub, run)
    assert set(hub.files("ada/student")) == PUBLISHED | {".gitattributes"}


def test_what_only_an_earlier_student_had_goes_and_what_the_user_added_stays(
    start: Callable[..., Hub], run: Path
) -> None:
    hub = start()
    gone = ("pytorch_lora_weights.safetensors", "eval.json", "samples/1.png")
    student.evaluation(run)
    picture = (run / "export/samples/0.png").read_bytes()
    for name in ("pytorch_lora_weights.safetensors", "samples/1.png", "samples/mine.png"):
        (run / "export" / name).write_bytes(picture)
    push(hub, run)
    for name in (*gone, "samples/mine.png"):
        (run / "export" / name).unlink()
    push(hub, run)
    there = set(hub.files("ada/student"))
    assert not there & set(gone)
    assert "samples/mine.png" in there


def test_prose_of_the_exports_own_card_is_published_with_a_new_repo(start: Callable[..., Hub], run: Path) -> None:
    hub, readme = start(), run / "export" / "README.md"
    model_card.write(run / "export")
    readme.write_text(readme.read_text() + "\nMade for the museum.\n")
    assert "Made for the museum." in Client(hub.url, ADA.token).plan(local_student(str(run)), "ada/student").card
    push(hub, run)
    assert b"Made for the museum." in (hub.files("ada/student")["README.md"] or b"")
    readme.write_text(readme.read_text().replace("museum", "zoo"))
    said = Said()
    push(hub, run, report=said)
    assert b"Made for the museum." in (hub.files("ada/student")["README.md"] or b"")
    assert any("keeps its own prose" in line for line in said.lines)


def test_an_interrupted_upload_goes_on(start: Callable[..., Hub], run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = start()
    monkeypatch.setattr(upload, "LARGE", 1000)
    weights = run / "export" / WEIGHTS
    (run / "export/unet/more.safetensors").write_bytes(weights.read_bytes() + b"more")
    second = hashlib.sha256((run / "export/unet/more.safetensors").read_bytes()).hexdigest()
    hub.fail("PUT", "/storage/", 500)  # the client tries again by itself
    hub.fail("PUT", second, 400)
    assert "HTTP 400" in refusal(hub, run).problem
    assert len(hub.blobs) == 1
    hub.fail("POST", "/commit/", 500)
    error = refusal(hub, run)
    assert (error.code, "HTTP 500" in error.problem, "same command" in error.fix) == (1, True, True)
    assert hub.seen("PUT", second) == [f"/storage/{second}"] * 2
    hub.requests.clear()
    assert set(push(hub, run).uploaded) == {*PUBLISHED, "unet/more.safetensors"}
    assert not hub.seen("PUT")
    assert hub.files("ada/student")[WEIGHTS] == weights.read_bytes()


def test_a_connection_cut_within_a_file_is_taken_up_again(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    hub.cut("PUT", "/storage/", after=1000)
    push(hub, run)
    assert len(hub.seen("PUT")) == 3
    assert hub.files("ada/student")[WEIGHTS] == (run / "export" / WEIGHTS).read_bytes()


def test_a_hub_without_xet_gets_the_files_over_lfs(
    start: Callable[..., Hub], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = start()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    said = Said()
    push(hub, run, report=said)
    assert hub.files("ada/student")[WEIGHTS] == (run / "export" / WEIGHTS).read_bytes()
    assert any("no xet store" in line for line in said.lines)
    assert constants.HF_HUB_DISABLE_XET is False
