"""A registry over plain HTTP: what the soak pushes with and reads with. The standard library alone."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_TIMEOUT = 15.0
_PAGE = 500


class Refused(OSError):
    """A registry answered something else than what was asked of it."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"{what}: {status}")
        self.status = status


def digest_of(body: bytes) -> str:
    """Returns the digest of bytes."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass(frozen=True)
class Image:
    """A manifest and the blobs that it names."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return digest_of(self.manifest)


def image(*layers: bytes) -> Image:
    """Returns an image with these layers."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "layers": [digest_of(it) for it in layers]})
    described = [_describe(_CONFIG, config.encode()), *(_describe(_LAYER, layer) for layer in layers)]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    return Image(json.dumps(document).encode(), (config.encode(), *layers))


def _describe(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}


class Registry:
    """A registry. Reads use one connection, so an object belongs to one thread; each write opens one of its own.

    Every method raises OSError when the registry does not answer, and `Refused` when it answers something else.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._host, self._port = str(urlsplit(url).hostname), urlsplit(url).port
        self._reading: HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, repository: str, tag: str, pushed: Image) -> None:
        """Pushes the blobs that the registry lacks, then the manifest by its tag."""
        for blob in pushed.blobs:
            digest = digest_of(blob)
            if self._read("HEAD", f"/v2/{repository}/blobs/{digest}")[0] != 200:
                self._upload(repository, digest, blob)
        path = f"/v2/{repository}/manifests/{tag}"
        self._write("PUT", path, pushed.manifest, {"Content-Type": MANIFEST}, expect=201)

    def delete(self, repository: str, digest: str) -> None:
        """Deletes a manifest, and with it every tag that names it."""
        self._write("DELETE", f"/v2/{repository}/manifests/{digest}", expect=202)

    def digest(self, repository: str, reference: str) -> str | None:
        """Returns the digest that a tag names; None when the registry says that it is missing."""
        status, headers, _ = self._read("HEAD", f"/v2/{repository}/manifests/{reference}", Accept=MANIFEST)
        if status not in (200, 404):
            raise Refused(status, f"{self.url}/v2/{repository}/manifests/{reference}")
        return headers.get("docker-content-digest") if status == 200 else None

    def manifest(self, repository: str, reference: str) -> bytes:
        """Returns the bytes of a manifest."""
        return self._get(f"/v2/{repository}/manifests/{reference}", Accept=MANIFEST)

    def blob(self, repository: str, digest: str) -> bytes:
        """Returns the bytes of a blob."""
        return self._get(f"/v2/{repository}/blobs/{digest}")

    def repositories(self) -> list[str]:
        """Returns the names of all repositories."""
        found: list[str] = []
        while True:
            last = f"&last={found[-1]}" if found else ""
            page = json.loads(self._get(f"/v2/_catalog?n={_PAGE}{last}"))["repositories"]
            found += page
            if len(page) < _PAGE:
                return found

    def tags(self, repository: str) -> list[str]:
        """Returns the tags of a repository; none when the registry does not know it."""
        try:
            return json.loads(self._get(f"/v2/{repository}/tags/list"))["tags"] or []
        except Refused as error:
            if error.status == 404:
                return []
            raise

    def _upload(self, repository: str, digest: str, body: bytes) -> None:
        _, headers = self._write("POST", f"/v2/{repository}/blobs/uploads/", expect=202)
        at = urlsplit(urljoin(self.url, headers["location"]))
        query = f"{at.query}&digest={digest}" if at.query else f"digest={digest}"
        self._write("PUT", f"{at.path}?{query}", body, expect=201)

    def _get(self, path: str, **headers: str) -> bytes:
        status, _, body = self._read("GET", path, **headers)
        if status != 200:
            raise Refused(status, f"{self.url}{path}")
        return body

    def _read(self, method: str, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """Asks on the kept connection, and once more on a new one when the registry has closed that."""
        kept = self._reading
        try:
            return self._ask(kept or self._connect(), method, path, headers)
        except (OSError, HTTPException):
            self.close()
            if kept is None:
                raise
        try:
            return self._ask(self._connect(), method, path, headers)
        except (OSError, HTTPException):
            self.close()
            raise

    def _connect(self) -> HTTPConnection:
        self._reading = HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        return self._reading

    @staticmethod
    def _ask(
        connection: HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, _lower(answer), answer.read()
        except HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error!r}") from error

    def _write(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        expect: int,
    ) -> tuple[int, Mapping[str, str]]:
        connection = HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        try:
            status, answered, _ = self._ask(connection, method, path, headers or {}, body)
        finally:
            connection.close()
        if status != expect:
            raise Refused(status, f"{method} {self.url}{path}")
        return status, answered

    def close(self) -> None:
        """Closes the connection of reads; the next read opens another."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None


def _lower(answer: HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}
