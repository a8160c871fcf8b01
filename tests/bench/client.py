"""A minimal registry client with one connection, and images of repeated bytes of any size."""

import hashlib
import http.client
import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from mesh.registry.manifests import OCI_MANIFEST
from tests.support.images import IMAGE_CONFIG, LAYER
from tests.support.parts import Distribution

MiB = 1024 * 1024
_BLOCK = os.urandom(MiB)


class Client:
    """Pushes to one registry and reads tags from it. Not thread-safe."""

    def __init__(self, registry: Distribution) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=300)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def head(self, repository: str, tag: str) -> str | None:
        """Returns the digest that a tag names, or None."""
        status, headers, _ = self._ask(
            "HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": OCI_MANIFEST}
        )
        return headers["Docker-Content-Digest"] if status == 200 else None

    def push_blobs(self, repository: str, sizes: list[int]) -> bytes:
        """Pushes new layers of these sizes and a config, and returns the manifest to put."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "made": os.urandom(8).hex()}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._push_blob(repository, IMAGE_CONFIG, len(config), iter([config])),
            "layers": [self._push_blob(repository, LAYER, size, _chunks(size)) for size in sizes],
        }
        return json.dumps(document).encode()

    def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        """Puts a manifest and returns its digest."""
        self._ask(
            "PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": OCI_MANIFEST}, expect=201
        )
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def start_upload(self, repository: str) -> str:
        """Opens an upload and returns its path with a query, to which `&digest=` can be added."""
        return _path(self._ask("POST", f"/v2/{repository}/blobs/uploads/", b"", expect=202)[1]["Location"])

    def _push_blob(
        self, repository: str, media_type: str, size: int, chunks: Iterator[bytes]
    ) -> dict[str, Any]:
        hashed = hashlib.sha256()

        def passing() -> Iterator[bytes]:
            for chunk in chunks:
                hashed.update(chunk)
                yield chunk

        session = self.start_upload(repository)
        sent = self._ask("PATCH", session, passing(), {"Content-Length": str(size)}, expect=202)[1]
        digest = f"sha256:{hashed.hexdigest()}"
        self._ask("PUT", f"{_path(sent['Location'])}&digest={digest}", b"", expect=201)
        return {"mediaType": media_type, "digest": digest, "size": size}

    def _ask(
        self, method: str, path: str, body: Any = None, headers: Any = None, *, expect: int | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        text = answer.read()
        assert expect in (None, answer.status), f"{method} {path}: {answer.status} {text[:200]!r}"
        return answer.status, answer.headers, text


def _path(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}"


def _chunks(size: int) -> Iterator[bytes]:
    """Yields `size` bytes that are unique: a random start, then the same block again and again."""
    start = os.urandom(min(16, size))
    yield start
    left = size - len(start)
    while left > 0:
        yield _BLOCK[:left]
        left -= MiB
