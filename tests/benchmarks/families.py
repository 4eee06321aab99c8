"""What `inspect` measures on the tiny pipeline of every family, as JSON on stdout.

python tests/benchmarks/families.py > tests/benchmarks/families.json
"""

import json
import sys
import tempfile
import warnings
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from scm_distill.cli.app import app

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo


def measured(name: str) -> dict[str, Any]:
    """The figures of one family; the reason where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        family = zoo.FAMILIES[name]
        family.pipeline().save_pretrained(folder)
        call = f"teacher.call={json.dumps(family.call)}"
        done = CliRunner().invoke(app, ["inspect", folder, "-s", call, "--json"])
        if done.exit_code:
            return {"refused": json.loads(done.stderr or done.stdout)["error"]["message"]}
        facts = json.loads(done.stdout)
        verified = {k: v for k, v in facts.get("verified", {}).items() if k != "time map"}
        return {
            "prediction": facts["prediction"],
            "guidance": facts.get("guidance", "none"),
            "velocity against the stock call": max(verified.values(), default=None),
            "tangent against differences": facts["tangent"]["against central difference"],
            "in": facts["tangent"]["in"],
            "two stock steps against ours": facts["export"]["stock difference"],
        }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    zoo.load_all()
    made = {package: version(package) for package in ("torch", "diffusers", "transformers")}
    facts = {"date": date.today().isoformat(), "machine": "2 CPU cores, no GPU", "versions": made}
    print(json.dumps({**facts, "families": {name: measured(name) for name in sorted(zoo.FAMILIES)}}, indent=1))
