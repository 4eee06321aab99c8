"""Publishing a student on a Hub: checked first, whitelisted, only what changed, in one commit."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._validators import validate_repo_id

from scm_distill.artifacts.layout import StudentFolder
from scm_distill.errors import UserError
from scm_distill.progress import Reporter
from scm_distill.publish import card, hub_errors, licence, staging, upload
from scm_distill.publish.hub_errors import HTTP_ERROR, explained


@dataclass(frozen=True)
class Target:
    """A repo that this token may write to."""

    repo: str  # NAMESPACE/NAME
    exists: bool
    private: bool  # or would be, once it is made


@dataclass(frozen=True)
class PushPlan:
    """What a push would send."""

    repo: str
    files: dict[str, int]  # path in the repo to bytes
    card: str
    user: str | None  # whom the token belongs to
    warnings: list[str]


@dataclass(frozen=True)
class RemoteState:
    """What a branch holds; no `sha` where there is no repo."""

    sha: str | None
    files: dict[str, RepoFile]
    card: str | None


@dataclass(frozen=True)
class PushResult:
    """What a push did. `commit` is the newest one, whether or not it is of this push."""

    repo: str
    url: str
    commit: str
    private: bool
    files: list[str]
    uploaded: list[str]
    bytes: int  # of the files that were uploaded


class Client:
    """The Hub as one account sees it. `endpoint` and `token` default to what huggingface_hub itself uses."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self.token = token or get_token()
        self.api = HfApi(endpoint=endpoint, token=self.token or False)
        self.endpoint = self.api.endpoint

    def whoami(self, repo: str) -> dict[str, Any]:
        """The account. Raises UserError without a token, or with one that is not accepted."""
        if not self.token:
            raise UserError(
                f"There is no token for {self.endpoint}.", "Type `hf auth login`, or set HF_TOKEN to a write token."
            )
        with explained(self.endpoint, repo, self.token):
            return dict(self.api.whoami(token=self.token))

    def preflight(self, repo: str, *, private: bool = False, create_pr: bool = False) -> Target:
        """Whether `repo` can be pushed to: token, rights, network. Nothing is changed. Raises UserError.

        A fine-grained token says little about its rights: the first write may still be refused.
        """
        with explained(self.endpoint, repo, self.token):
            validate_repo_id(repo)
        account = self.whoami(repo)
        repo = repo if "/" in repo else f"{account['name']}/{repo}"
        hub_errors.refuse_reader(account, repo, create_pr=create_pr)
        with explained(self.endpoint, repo, self.token):
            try:
                info = self.api.model_info(repo)
            except RepositoryNotFoundError:
                if create_pr:
                    raise
                return Target(repo, exists=False, private=private)
        if private and not info.private:
            raise UserError(
                f"{repo} is there already, and public: --private cannot hide what it holds.",
                "Make it private in its settings, or push to another name.",
            )
        return Target(repo, exists=True, private=bool(info.private))

    def licence(
        self, facts: Mapping[str, Any], given: str | None, folder: Path, *, public: bool
    ) -> tuple[dict[str, str], list[str]]:
        """The card's licence fields, and what to warn of. Raises UserError for a public repo without a licence.

        `facts`: base_model, hub_id and license of the teacher; `folder` may hold its licence files.
        """
        inherited, gated = self._teacher(facts)
        picked = licence.chosen(given, {**facts, "license": inherited}, folder)
        if public:
            licence.refuse_unknown(picked, facts)
        return picked, licence.warnings(picked, inherited, facts["hub_id"], gated=gated)

    def plan(self, model: StudentFolder, repo: str, *, private: bool = False, license: str | None = None) -> PushPlan:
        """What `push` would send; asks the Hub for nothing but the account, and that only with a token."""
        account = self.whoami(repo) if self.token else None
        if account and "/" not in repo:
            repo = f"{account['name']}/{repo}"
        facts = model.facts
        picked = licence.chosen(license, facts, model.export)
        said = licence.warnings(picked, facts["license"], facts["hub_id"], gated=False)
        if not picked and not private:
            said.append("no licence is known here: unless the teacher's card on the Hub names one, --license is needed")
        with tempfile.TemporaryDirectory() as folder:
            files, _ = self._staged(model, repo, Path(folder), picked, given=license is not None)
            sizes = {name: path.stat().st_size for name, path in files.items()}
            text = files["README.md"].read_text(encoding="utf-8")
        return PushPlan(repo, sizes, text, str(account["name"]) if account else None, said)

    def push(
        self,
        model: StudentFolder,
        repo: str,
        *,
        private: bool = False,
        revision: str | None = None,
        create_pr: bool = False,
        license: str | None = None,
        report: Reporter,
    ) -> PushResult:
        """Publish `model` in one commit: what changed since the last one, if anything. Raises UserError.

        `revision` is a branch, made where there is none; `create_pr` proposes the commit and changes no branch.
        """
        if revision and create_pr:
            raise UserError("--create-pr proposes a change of main.", "Leave --revision or --create-pr away.")
        facts = model.facts
        target = self.preflight(repo, private=private, create_pr=create_pr)
        repo = target.repo
        picked, warnings = self.licence(facts, license, model.export, public=not target.private)
        for warning in warnings:
            report.say(f"note: {warning}")
        with tempfile.TemporaryDirectory() as folder, explained(self.endpoint, repo, self.token):
            files, fresh = self._staged(model, repo, Path(folder), picked, given=license is not None)
            there = self._there(target, revision)
            if there.card is not None:
                text = card.merged(fresh, there.card)
                if files["README.md"].read_text(encoding="utf-8") not in (fresh, text):
                    report.say("note: the card on the Hub keeps its own prose; that of the local README.md is not sent")
                files["README.md"].write_text(text, encoding="utf-8")
            sent, gone = upload.changed(files, there.files), upload.stale(model, files, there.files)
            size = sum(files[name].stat().st_size for name in sent)
            if "README.md" in sent:
                hub_errors.refuse_card(files["README.md"])
            commit, url = self._made(target, revision), self._url(repo, revision)
            if sent or gone:
                report.say(f"{len(sent)} of {len(files)} files to upload, {upload.megabytes(size)}")
                where: dict[str, Any] = {"repo_id": repo, "revision": revision, "create_pr": create_pr}
                adding = {name: files[name] for name in sent}
                done = upload.commit(self.api, adding, gone, there.sha or commit, where, report, self.token)
                commit, url = done.oid, done.pr_url or url
            else:
                report.say(f"nothing to upload: {repo} holds these {len(files)} files already")
        return PushResult(repo, url, commit, target.private, sorted(files), sorted(sent), size)

    def _url(self, repo: str, revision: str | None) -> str:
        return f"{self.endpoint}/{repo}" + (f"/tree/{quote(revision, safe='/')}" if revision else "")

    def _teacher(self, facts: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
        """The teacher's licence, from its card on the Hub where the export does not know it; whether it is gated."""
        inherited, hub_id = dict(facts["license"]), facts["hub_id"]
        if not hub_id:
            return inherited, False
        try:
            info = self.api.model_info(hub_id)
        except (HTTP_ERROR, OSError):  # another Hub than the teacher's, or a teacher that has gone
            return inherited, False
        found: dict[str, Any] = info.card_data.to_dict() if info.card_data else {}  # type: ignore[no-untyped-call]
        return inherited or {key: str(found[key]) for key in licence.FIELDS if found.get(key)}, bool(info.gated)

    def _there(self, target: Target, revision: str | None) -> RemoteState:
        """What the branch holds; a new one will begin as main is."""
        if not target.exists:
            return RemoteState(None, {}, None)
        try:
            sha = self.api.model_info(target.repo, revision=revision).sha
        except RevisionNotFoundError:
            sha = self.api.model_info(target.repo).sha
        listed = self.api.list_repo_tree(target.repo, recursive=True, revision=sha)
        files = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        if "README.md" not in files:
            return RemoteState(sha, files, None)
        with tempfile.TemporaryDirectory() as folder:
            path = self.api.hf_hub_download(target.repo, "README.md", revision=sha, local_dir=folder)
            return RemoteState(sha, files, Path(path).read_text(encoding="utf-8"))

    def _made(self, target: Target, revision: str | None) -> str:
        """The newest commit of the branch; the repo and the branch are made where they are not there."""
        if not target.exists:
            self.api.create_repo(target.repo, private=target.private or None, exist_ok=True)
        if revision and not revision.startswith("refs/"):
            self.api.create_branch(target.repo, branch=revision, exist_ok=True)
        return str(self.api.model_info(target.repo, revision=revision).sha)

    def _staged(
        self, model: StudentFolder, repo: str, into: Path, picked: Mapping[str, str], *, given: bool
    ) -> tuple[dict[str, Path], str]:
        """The files to publish, cleaned, and the text of the card without what its user wrote.

        The card among the files has the prose of the export's own. Raises UserError for what would leak.
        """
        files = staging.stage(model, into, picked)
        fresh = card.render(into, repo, picked.get("license") if given else None)
        files["README.md"] = into / "README.md"
        own = model.export / "README.md"
        before = own.read_text(encoding="utf-8") if own.is_file() else ""
        files["README.md"].write_text(card.merged(fresh, before) if card.BEGIN in before else fresh, encoding="utf-8")
        staging.refuse_leaks(files, model, self.token)
        return files, fresh
