"""Errors of the libraries that load and run a pipeline, as errors that say what is wrong with the teacher."""

from pathlib import Path

from scm_distill.errors import UserError, one_line


def not_loaded(folder: str, repo: str, error: Exception) -> UserError:
    """The UserError for `error`, which the libraries raised while `repo`, found at `folder`, was loaded."""
    if isinstance(error, UserError):
        return error
    local = Path(folder).is_dir()
    if local:
        fix = "Its files are damaged or incomplete, or a package they need is not installed: see the reason."
    else:
        fix = "Check the name, the network and `hf auth whoami`; HF_HUB_OFFLINE=1 reads the local cache only."
    where = "" if local else "there is no such folder, and from the Hub: "
    return UserError(f"{repo} could not be loaded: {where}{one_line(error, 240)}", fix)
