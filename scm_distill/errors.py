"""The one exception that reaches a user: what is wrong, then what to do."""


class UserError(Exception):
    """Something the user can mend, shown as two lines and an exit code.

    `problem` says what is wrong, `fix` what to do. `code` is 2 for bad input (settings, files, models) and 1 for a
    run that failed by its own figures (a loss that is not finite, a student that is worse than its teacher).
    """

    def __init__(self, problem: str, fix: str = "Run again.", *, code: int = 2) -> None:
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix
        self.code = code


def one_line(error: object, limit: int = 200) -> str:
    """The text of another library's error as part of a sentence: its white space made single, and cut at `limit`."""
    return " ".join(str(error).split())[:limit]
