"""`python tests/foreign ...`: a script (FILE.py ARGUMENTS) or a command of scm-distill on the foreign device."""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import foreign  # noqa: E402

if __name__ == "__main__":
    foreign.activate()
    sys.argv = sys.argv[1:]
    if sys.argv[0].endswith(".py"):
        sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        from scm_distill.cli.app import main

        sys.argv.insert(0, "scm-distill")
        main()
