"""Where large files go: LFS, in one piece or in parts, and the door to the xet store."""

from __future__ import annotations

import hashlib
import math
import time
from typing import TYPE_CHECKING

from hub import routes
from hub.store import xet_hashes

if TYPE_CHECKING:
    from hub.server import Hub, Request, Response


def hashes(hub: Hub) -> dict[str, str]:
    """sha256 to xet hash of what the xet store holds."""
    return xet_hashes(hub.xet) if hub.xet else {}


def holds(hub: Hub, oid: str) -> bool:
    """Whether this large file is here."""
    return oid in hub.blobs or oid in hashes(hub)


def xet_token(hub: Hub, request: Request, repo: str, kind: str, revision: str) -> Response:
    """Where the xet store is: as JSON for hf-xet, as headers for the Python client."""
    if hub.xet is None:
        return routes.reply(404, {"error": "Not Found"})
    if kind == "write" and (no := routes.refused(hub, request, repo, pull_request="create_pr=1" in request.query)):
        return no
    url, token, until = f"local://{hub.xet}", "xet", int(time.time()) + 3600
    named = {"X_Xet_Cas_Url": url, "X_Xet_Access_Token": token, "X_Xet_Token_Expiration": str(until)}
    return routes.reply(200, {"casUrl": url, "accessToken": token, "exp": until}, **named)


def batch(hub: Hub, request: Request, repo: str) -> Response:
    """Where to put each file; nothing for one that is here."""
    if no := routes.refused(hub, request, repo, pull_request=True):
        return no
    objects = []
    for item in request.json["objects"]:
        oid, size = item["oid"], item["size"]
        answer = {"oid": oid, "size": size}
        if not holds(hub, oid):
            upload: dict[str, object] = {"href": f"{hub.url}/storage/{oid}"}
            if hub.part and size > hub.part:
                numbers = range(1, math.ceil(size / hub.part) + 1)
                urls = {str(n): f"{hub.url}/storage/{oid}/{n}" for n in numbers}
                upload = {
                    "href": f"{hub.url}/storage/{oid}/complete",
                    "header": {"chunk_size": str(hub.part), **urls},
                }
            answer["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/lfs/verify"}}
        objects.append(answer)
    return routes.reply(200, {"objects": objects})


def _signed(request: Request) -> Response | None:
    """A pre-signed address refuses a second kind of authorization."""
    if "authorization" in {name.lower() for name in request.headers}:
        return routes.reply(400, {"error": "Only one auth mechanism allowed"})
    return None


def put(hub: Hub, request: Request, oid: str) -> Response:
    """A file in one piece."""
    if no := _signed(request):
        return no
    if hashlib.sha256(request.body).hexdigest() != oid:
        return routes.reply(400, {"error": "checksum"})
    hub.blobs[oid] = request.body
    return routes.reply()


def put_part(hub: Hub, request: Request, oid: str, part: str) -> Response:
    """A part of a file."""
    if no := _signed(request):
        return no
    hub.parts[oid, int(part)] = request.body
    return routes.reply(ETag=hashlib.md5(request.body).hexdigest())


def complete(hub: Hub, request: Request, oid: str) -> Response:
    """Put the parts together."""
    parts = [hub.parts[oid, part["partNumber"]] for part in request.json["parts"]]
    etags = [hashlib.md5(part).hexdigest() for part in parts]
    whole = b"".join(parts)
    if etags != [part["etag"] for part in request.json["parts"]] or hashlib.sha256(whole).hexdigest() != oid:
        return routes.reply(400, {"error": "checksum"})
    hub.blobs[oid] = whole
    return routes.reply()


def verify(hub: Hub, request: Request) -> Response:
    """Whether the file is here in full."""
    blob = hub.blobs.get(request.json["oid"])
    return routes.reply(200 if blob is not None and len(blob) == request.json["size"] else 404, {})
