"""What a teacher's own model card says of its licence."""

from pathlib import Path

from scm_distill.teachers.places import hub_id_of, resolve


def license_of(repo: str) -> dict[str, str]:
    """The licence fields of a teacher's own card, if it is on this machine; nothing is downloaded. Raises UserError."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.repocard import metadata_load

    if repo.endswith(".safetensors"):
        return {}
    hub_id = hub_id_of(repo)
    card = try_to_load_from_cache(hub_id, "README.md") if hub_id else Path(resolve(repo)) / "README.md"
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return {}
    metadata = metadata_load(card) or {}
    return {key: str(metadata[key]) for key in ("license", "license_name", "license_link") if key in metadata}
