"""Plain requests to the built-in registry, and small images to push."""

import io
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl

from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.port import digest_of
from schemas.names import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BLOB = b"0123456789" * 100


@dataclass
class Answer:
    """A response whose body has been read."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of its first OCI error."""
        return self.json["errors"][0]["code"]


class Client:
    """Sends requests without a retry and returns whatever is answered."""

    def __init__(self, registry: BuiltinRegistry, session: aiohttp.ClientSession) -> None:
        self.registry = registry
        self.session = session

    async def __call__(self, method: str, path: str | yarl.URL, **more: Any) -> Answer:
        url = self.registry.url + path if isinstance(path, str) else path
        async with self.session.request(method, url, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def push_blob(self, repository: str, body: bytes, algorithm: str = "sha256") -> Digest:
        """Pushes a blob in one request."""
        digest = digest_of(body, algorithm)
        answer = await self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data=body)
        assert answer.status == 201
        return digest

    async def begin(self, repository: str = "app") -> str:
        """Opens an upload and returns its location."""
        answer = await self("POST", f"/v2/{repository}/blobs/uploads/")
        assert (answer.status, answer.headers["Range"]) == (202, "0-0")
        return answer.headers["Location"]

    async def put_manifest(
        self, path: str, document: dict[str, Any], content_type: str = OCI_MANIFEST
    ) -> Answer:
        """Puts `document` as a manifest at `path`."""
        headers = {"Content-Type": content_type}
        return await self("PUT", path, data=io.BytesIO(json.dumps(document).encode()), headers=headers)

    async def push_image(self, repository: str, reference: str, **more: Any) -> Digest:
        """Pushes a small image; `more` changes fields of its manifest."""
        document = await self.image(repository) | more
        answer = await self.put_manifest(f"/v2/{repository}/manifests/{reference}", document)
        assert answer.status == 201, answer.body
        return Digest(answer.headers["Docker-Content-Digest"])

    async def image(self, repository: str) -> dict[str, Any]:
        """Pushes the blobs of a small image and returns its manifest."""
        config, layer = await self.push_blob(repository, b"{}"), await self.push_blob(repository, BLOB)
        return image_of(config, layer)


def image_of(config: Digest, layer: Digest) -> dict[str, Any]:
    """Returns a manifest of the config `{}` and the layer `BLOB`."""
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": LAYER, "digest": layer, "size": len(BLOB)}],
    }
