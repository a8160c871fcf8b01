"""A registry with token authentication and its token server: one image, and one user who may pull it."""

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.support import images
from tests.support.registries import Stub, stub

USER, PASSWORD = "anna", "s3cret:with/colon"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class TokenRegistry:
    """The registry, its token server and the tokens that were issued."""

    registry: Stub
    tokens: Stub  # may be the registry itself
    repository: str
    image: images.Image
    realm: str = ""
    forms: list[dict[str, str]] = field(default_factory=list)
    issued: dict[str, str] = field(default_factory=dict)  # scopes by token

    @property
    def url(self) -> str:
        """The base URL of the registry."""
        return self.registry.url

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request to the registry or to its token server."""
        if request.path == "/auth/token":
            return await self._issue(request)
        return self._serve(request)

    async def _issue(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            form = {name: str(value) for name, value in (await request.post()).items()}
            self.forms.append(form)
            known, scope = (
                form.get("username") == USER and form.get("password") == PASSWORD,
                form.get("scope", ""),
            )
        else:
            known = request.headers.get("Authorization") == BASIC
            scope = " ".join(request.query.getall("scope", []))
        if not known or request.query.get("fixed") != "1":
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "who?"}]}, status=401)
        token = secrets.token_hex(8)
        self.issued[token] = scope
        return web.json_response({"token": token, "access_token": token, "expires_in": 300})

    def _serve(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        wanted = f"repository:{self.repository}:pull"
        if token not in self.issued or (request.path != "/v2/" and wanted not in self.issued[token].split()):
            scope = "" if request.path == "/v2/" else f',scope="{wanted}"'
            said = {"WWW-Authenticate": f'Bearer realm="{self.realm}",service="inner, \\"one\\""{scope}'}
            return web.json_response(
                {"errors": [{"code": "UNAUTHORIZED", "message": ""}]}, status=401, headers=said
            )
        return self._content(request.path)

    def _content(self, path: str) -> web.StreamResponse:
        head = f"/v2/{self.repository}"
        if path == "/v2/":
            return web.json_response({})
        manifest = self.image.manifest
        if path in (f"{head}/manifests/v1", f"{head}/manifests/{manifest.digest}"):
            said = {"Docker-Content-Digest": manifest.digest, "Content-Type": manifest.media_type}
            return web.Response(body=manifest.body, headers=said)
        for digest, body in self.image.blobs.items():
            if path == f"{head}/blobs/{digest}":
                return web.Response(body=body, headers={"Docker-Content-Digest": digest})
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": ""}]}, status=404)


@asynccontextmanager
async def token_registry(
    repository: str, image: images.Image, *, apart: bool = False
) -> AsyncIterator[TokenRegistry]:
    """Runs the registry; with `apart` its token server has an address of its own."""
    async with stub() as registry, stub() as other:
        made = TokenRegistry(registry, other if apart else registry, repository, image)
        made.realm = f"{made.tokens.url}/auth/token?fixed=1"
        registry.answer = other.answer = made.handle
        yield made
