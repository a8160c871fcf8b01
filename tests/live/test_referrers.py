"""Signatures and SBOMs between two real docker-registries, which have no referrers API; pushed by plain HTTP."""

import json
import os
from typing import Any
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import pytest

from mesh.registry.port import Manifest
from schemas.names import Digest
from tests.live.test_line import (
    Line,
    kafka,  # noqa: F401
    line,  # noqa: F401
    receiver,  # noqa: F401
    registries,  # noqa: F401
)
from tests.support import attached, images, parts
from tests.support.attached import SBOM, attachment, cosign_tag
from tests.support.parts import Distribution, until

pytestmark = [
    pytest.mark.real("docker-registry", "skopeo"),
    pytest.mark.parametrize("line", ["sqlite"], indirect=True),
]

APP = "game/app"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signature_and_an_sbom_follow_their_image(line: Line, when: str) -> None:  # noqa: F811
    """Pushed before the mesh hears of the image, or after it was copied: both are found by digest."""
    image = images.image(layers=[os.urandom(100_000)])
    signature = images.image(layers=[image.digest.encode()], config_type="text/plain")
    sbom = attachment(image.manifest, SBOM, image.digest.encode() * 10)
    push = [lambda: _attach(line.source, image, signature, sbom), lambda: _push(line, image)]
    for step in push if when == "before" else reversed(push):
        step()
    at, tag = line.destination, cosign_tag(image.digest, "sig")
    until("the signature", lambda: at.digest(APP, tag) == signature.digest)
    until("the list", lambda: listed(at, image.digest) == [attached.entry(sbom.manifest)])
    assert get(at, f"manifests/{sbom.digest}") == sbom.manifest.body
    assert get(at, f"blobs/{sbom.blob_descriptors[1].digest}") == image.digest.encode() * 10
    ended = until("the sbom in the sync log", lambda: line.log(repository=APP, digest=sbom.digest))
    reason = (
        "Succeed" if when == "after" else "Skipped"
    )  # its own event came before its subject, and it came with that
    assert (ended[-1]["tag"], ended[-1]["status"], ended[-1]["resource_type"]) == (None, reason, "artifact")


def _push(line: Line, image: images.Image) -> None:  # noqa: F811
    layout = images.write_layout(line.folder / "pushed", {"v1": image})
    parts.push(layout, "v1", line.source, f"{APP}:v1")
    line.ended(APP, "v1")


def _attach(registry: Distribution, image: images.Image, signature: images.Image, sbom: images.Image) -> None:
    put(registry, signature, cosign_tag(image.digest, "sig"))
    put(registry, sbom, sbom.digest)
    put_manifest(registry, attached.index_of([attached.entry(sbom.manifest)]), image.digest.replace(":", "-"))


def listed(registry: Distribution, subject: Digest) -> list[dict[str, Any]] | None:
    """What an old registry's clients find about an image."""
    if registry.digest(APP, subject.replace(":", "-")) is None:
        return None
    found: list[dict[str, Any]] = json.loads(get(registry, f"manifests/{subject.replace(':', '-')}"))[
        "manifests"
    ]
    return found


def put(registry: Distribution, pushed: images.Image, reference: str) -> None:
    for digest, body in pushed.blobs.items():
        with _ask(registry, "POST", "blobs/uploads/") as started:
            session = urljoin(registry.url, started.headers["Location"])
        mark = "&" if "?" in session else "?"
        with _send("PUT", f"{session}{mark}digest={digest}", body, "application/octet-stream"):
            pass
    put_manifest(registry, pushed.manifest, reference)


def put_manifest(registry: Distribution, manifest: Manifest, reference: str) -> None:
    url = f"{registry.url}/v2/{APP}/manifests/{reference}"
    with _send("PUT", url, manifest.body, manifest.media_type) as answer:
        assert registry.answers_subject or answer.headers["OCI-Subject"] is None


def get(registry: Distribution, path: str) -> bytes:
    with _ask(registry, "GET", path) as answer:
        found: bytes = answer.read()
        return found


def _ask(registry: Distribution, method: str, path: str) -> Any:
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
    request = Request(f"{registry.url}/v2/{APP}/{path}", method=method, headers={"Accept": accept})
    return urlopen(request, timeout=10)


def _send(method: str, url: str, body: bytes, media_type: str) -> Any:
    return urlopen(Request(url, body, {"Content-Type": media_type}, method=method), timeout=10)
