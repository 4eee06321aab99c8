"""A Hub on the loopback device, for the real huggingface_hub client: `with Hub(folder) as hub: HfApi(hub.url)`."""

from hub.server import Hub
from hub.store import ADA, BOB, READER, User

__all__ = ["ADA", "BOB", "READER", "Hub", "User"]
