"""Publishing a student on a Hub: checked first, chosen files only, only what changed, in one commit."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # re-exported, and documented

from scm_distill.artifacts.files import Damaged, read_text
from scm_distill.artifacts.layout import CARD, StudentFolder
from scm_distill.artifacts.licence_fields import licence_fields
from scm_distill.errors import UserError
from scm_distill.progress import Reporter
from scm_distill.publish import card, hub_errors, licence, staging, upload
from scm_distill.publish.hub_errors import Account, explained
from scm_distill.publish.hub_private import HTTP_ERROR
from scm_distill.publish.licence import TeacherLicence
from scm_distill.publish.upload import Destination


@dataclass(frozen=True)
class Target:
    """A repository that this token may write to."""

    repo: str  # NAMESPACE/NAME
    exists: bool
    private: bool  # or would be, once it is made


@dataclass(frozen=True)
class PushPlan:
    """What a push would send."""

    repo: str
    files: dict[str, int]  # path in the repository to bytes
    card: str
    user: str | None  # whom the token belongs to; None without a token
    warnings: list[str]


@dataclass(frozen=True)
class RemoteState:
    """What a branch of a repository holds; `sha` is None where there is no repository."""

    sha: str | None
    files: dict[str, RepoFile]  # by path in the repository
    card: str | None  # the text of its README.md


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


@dataclass(frozen=True)
class _Staged:
    """What is ready to be published."""

    files: dict[str, Path]  # by path in the repository, the card among them
    card: str  # as it was generated, without any prose
    passed_over: list[str]  # a sentence for each damaged file that is left out


class Client:
    """The Hub as one account sees it. `endpoint` and `token` default to what huggingface_hub itself uses."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self.token = token or get_token()
        self.api = HfApi(endpoint=endpoint, token=self.token or False)
        self.endpoint = self.api.endpoint

    def whoami(self, repo: str) -> Account:
        """The account of the token, by which `repo` is pushed to. Raises UserError without a token that is accepted."""
        if not self.token:
            raise UserError(
                f"There is no token for {self.endpoint}.", "Type `hf auth login`, or set HF_TOKEN to a write token."
            )
        with explained(self.endpoint, repo, self.token):
            return Account.of(self.api.whoami(token=self.token))

    def preflight(self, repo: str, *, private: bool = False, create_pr: bool = False) -> Target:
        """Whether `repo` can be pushed to: token, rights, network. Nothing is changed. Raises UserError.

        A fine-grained token says little about its rights: the first write may still be refused.
        """
        with explained(self.endpoint, repo, self.token):
            validate_repo_id(repo)
        account = self.whoami(repo)
        repo = repo if "/" in repo else f"{account.name}/{repo}"
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
                f"{repo} exists already, and is public: --private cannot hide what it holds.",
                "Make it private in its settings, or push to another name.",
            )
        return Target(repo, exists=True, private=bool(info.private))

    def licence(
        self, teacher: TeacherLicence, requested: str | None, folder: Path, *, public: bool
    ) -> tuple[dict[str, str], list[str]]:
        """The licence fields of the student's card, and what the publisher should know.

        Where `teacher` has no licence, that of its card on the Hub is taken. `requested` and `folder` as in
        `licence.chosen`. Raises UserError for a public repository without a licence.
        """
        inherited, gated = self._inherited(teacher)
        fields = licence.chosen(requested, TeacherLicence(teacher.name, teacher.hub_id, inherited), folder)
        if public:
            licence.refuse_unknown(fields, teacher.name)
        return fields, licence.warnings(fields, inherited, teacher.hub_id, gated=gated)

    def plan(self, model: StudentFolder, repo: str, *, private: bool = False, license: str | None = None) -> PushPlan:
        """What `push` would send; asks the Hub for nothing but the account, and that only with a token."""
        account = self.whoami(repo) if self.token else None
        if account and "/" not in repo:
            repo = f"{account.name}/{repo}"
        teacher = licence.of_teacher(card.exported(model.export).facts)
        fields = licence.chosen(license, teacher, model.export)
        warnings = licence.warnings(fields, teacher.fields, teacher.hub_id, gated=False)
        if not fields and not private:
            warnings.append(
                "no licence is known here: unless the teacher's card on the Hub names one, --license is needed"
            )
        with tempfile.TemporaryDirectory() as folder, explained(self.endpoint, repo, self.token):
            staged = self._staged(model, repo, Path(folder), fields, overridden=license is not None)
            sizes = {name: path.stat().st_size for name, path in staged.files.items()}
            text = staged.files[CARD].read_text(encoding="utf-8")
        return PushPlan(repo, sizes, text, account.name if account else None, [*warnings, *staged.passed_over])

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
        teacher = licence.of_teacher(card.exported(model.export).facts)
        target = self.preflight(repo, private=private, create_pr=create_pr)
        repo = target.repo
        fields, warnings = self.licence(teacher, license, model.export, public=not target.private)
        with tempfile.TemporaryDirectory() as folder, explained(self.endpoint, repo, self.token):
            staged = self._staged(model, repo, Path(folder), fields, overridden=license is not None)
            files = staged.files
            for note in (*warnings, *staged.passed_over):
                report.say(f"note: {note}")
            remote = self._remote_state(target, revision)
            if remote.card is not None:
                self._keep_prose(staged, remote.card, report)
            sent, deleted = upload.changed(files, remote.files), upload.stale(model, files, remote.files)
            size = sum(files[name].stat().st_size for name in sent)
            if CARD in sent:
                hub_errors.refuse_card(files[CARD])
            commit, url = self._branch_head(target, revision), self._url(repo, revision)
            if sent or deleted:
                report.say(f"{len(sent)} of {len(files)} files to upload, {upload.megabytes(size)}")
                added, destination = {name: files[name] for name in sent}, Destination(repo, revision, create_pr)
                done = upload.commit(self.api, added, deleted, remote.sha or commit, destination, report, self.token)
                commit, url = done.oid, done.pr_url or url
            else:
                report.say(f"nothing to upload: {repo} holds these {len(files)} files already")
        return PushResult(repo, url, commit, target.private, sorted(files), sorted(sent), size)

    def _url(self, repo: str, revision: str | None) -> str:
        return f"{self.endpoint}/{repo}" + (f"/tree/{quote(revision, safe='/')}" if revision else "")

    def _inherited(self, teacher: TeacherLicence) -> tuple[Mapping[str, str], bool]:
        """The teacher's licence fields, from its card on the Hub where they are not known; whether it is gated."""
        if not teacher.hub_id:
            return teacher.fields, False
        try:
            info = self.api.model_info(teacher.hub_id)
        except (HTTP_ERROR, OSError):  # this Hub is not the one of the teacher, or the teacher is gone
            return teacher.fields, False
        found = info.card_data.to_dict() if info.card_data else {}  # type: ignore[no-untyped-call]
        return teacher.fields or licence_fields(found), bool(info.gated)

    def _remote_state(self, target: Target, revision: str | None) -> RemoteState:
        """What the branch `revision` holds; one that does not exist yet will begin as main is."""
        if not target.exists:
            return RemoteState(None, {}, None)
        try:
            sha = self.api.model_info(target.repo, revision=revision).sha
        except RevisionNotFoundError:
            sha = self.api.model_info(target.repo).sha
        listed = self.api.list_repo_tree(target.repo, recursive=True, revision=sha)
        files = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        if CARD not in files:
            return RemoteState(sha, files, None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(self.api.hf_hub_download(target.repo, CARD, revision=sha, local_dir=folder))
            return RemoteState(sha, files, _card_text(path, target.repo))

    def _branch_head(self, target: Target, revision: str | None) -> str:
        """The newest commit of the branch; makes the repository and the branch where they do not exist."""
        if not target.exists:
            self.api.create_repo(target.repo, private=target.private or None, exist_ok=True)
        if revision and not revision.startswith("refs/"):
            self.api.create_branch(target.repo, branch=revision, exist_ok=True)
        return str(self.api.model_info(target.repo, revision=revision).sha)

    def _staged(
        self, model: StudentFolder, repo: str, into: Path, fields: Mapping[str, str], *, overridden: bool
    ) -> _Staged:
        """Choose and clean what to publish, in the folder `into`.

        The card among the files has the prose of the export's own README.md besides. `fields` are the licence fields;
        `overridden`: they are not the teacher's. Raises UserError for what must not be published.
        """
        selection = staging.stage(model, into, fields)
        generated = card.render(into, repo, fields.get("license") if overridden else None)
        files = {**selection.files, CARD: into / CARD}
        own = model.export / CARD
        before = read_text(own) if own.exists() else ""
        text = card.merged(generated, before) if card.BEGIN in before else generated
        files[CARD].write_text(text, encoding="utf-8")
        staging.refuse_leaks(files, model, self.token)
        return _Staged(files, generated, selection.passed_over)

    @staticmethod
    def _keep_prose(staged: _Staged, remote_card: str, report: Reporter) -> None:
        """Write the card to send: the generated one, with the prose of the card on the Hub."""
        text, path = card.merged(staged.card, remote_card), staged.files[CARD]
        if path.read_text(encoding="utf-8") not in (staged.card, text):
            report.say("note: the card on the Hub keeps its own prose; that of the local README.md is not sent")
        path.write_text(text, encoding="utf-8")


def _card_text(path: Path, repo: str) -> str:
    """The card of `repo`, downloaded to `path`. Raises UserError where it is no text."""
    try:
        return read_text(path)
    except Damaged as error:
        raise UserError(f"{CARD} of {repo} on the Hub {error.reason}.", "Mend or delete it there.") from error
