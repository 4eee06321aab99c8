"""Every check with one command: `python tests/check.py`; anything after `--` goes to pytest, as in `-- -m quick`."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
STATIC: dict[str, list[str]] = {
    "ruff format": [PYTHON, "-m", "ruff", "format", "--check"],
    "ruff check": [PYTHON, "-m", "ruff", "check"],
    "mypy": [PYTHON, "-m", "mypy"],
    "lint-imports": [
        PYTHON, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())",
    ],
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run all checks, or those that are named; 1 if any failed, with the names of those that did."""
    named, options = list(arguments), []
    if "--" in named:
        at = named.index("--")
        named, options = named[:at], named[at + 1 :]
    checks = {**STATIC, "pytest": [PYTHON, "-m", "pytest", *options]}
    if unknown := sorted(set(named) - set(checks)):
        print(f"no such check: {', '.join(unknown)}; there are: {', '.join(checks)}", file=sys.stderr)
        return 2
    failed = []
    for name in named or checks:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(checks[name], cwd=ROOT).returncode
        failed += [name] if code else []
        print(f"== {name}: {'failed' if code else 'passed'} in {time.monotonic() - start:.0f} s\n", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
