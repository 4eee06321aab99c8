"""`scm-distill doctor`: what this machine has."""

from scm_distill.cli import console
from scm_distill.cli.options import Json


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, and whether the tangent works on it."""
    with console.user_errors(as_json=as_json):
        from scm_distill.commands import doctor

        found = doctor.doctor()
        devices = {
            one.device: f"{one.name}; exact tangent off by {one.tangent_error:.1e}, attention in bf16 {one.attention}"
            for one in found.devices
        }
        console.facts({**found.versions, "threads": found.threads, **devices}, as_json=as_json)
