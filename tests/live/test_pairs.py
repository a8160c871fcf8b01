"""Each kind of artifact between each pair of real registries that can be had: docker-registry 2.8 and distribution 3.

Pushed to the source, told by the source's own notification, and looked at in the destination without our client.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import attached, images, parts
from tests.attached import SBOM, attachment, cosign_tag
from tests.live.test_line import (
    Line,
    kafka,  # noqa: F401
    line,  # noqa: F401
    receiver,  # noqa: F401
)
from tests.live.test_referrers import get, listed, put, put_manifest
from tests.parts import Distribution, until

PROGRAMS = {"2.8": "docker-registry", "3": str(parts.DISTRIBUTION_3)}
HELM = "application/vnd.cncf.helm.config.v1+json"
APP, CHART = "game/app", "game/chart"

pytestmark = [
    pytest.mark.real("docker-registry", "distribution-3", "skopeo"),
    pytest.mark.parametrize("line", ["sqlite"], indirect=True),
]


@pytest.fixture(
    params=[(source, destination) for source in PROGRAMS for destination in PROGRAMS], ids=" to ".join
)
def registries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Distribution, Distribution]]:
    source, destination = (PROGRAMS[name] for name in request.param)
    made = Distribution(tmp_path / "cn", program=source), Distribution(tmp_path / "eu", program=destination)
    yield made
    for registry in made:
        registry.end()


def test_image_index_chart_signature_and_sbom_arrive_as_they_were(line: Line) -> None:  # noqa: F811
    image = images.image(layers=[os.urandom(200_000), b"small"])
    index = images.index([images.image(layers=[os.urandom(1000), bytes([number])]) for number in range(2)])
    chart = images.image(
        layers=[os.urandom(5000)], config_type=HELM, config=b'{"name":"chart","version":"1.2.3"}'
    )
    signature = images.image(layers=[image.digest.encode()], config_type="text/plain")
    sbom = attachment(image.manifest, SBOM, image.digest.encode() * 10)
    layout = images.write_layout(line.folder / "pushed", {"v1": image, "multi": index, "1.2.3": chart})
    for repository, tag in ((APP, "v1"), (APP, "multi"), (CHART, "1.2.3")):
        parts.push(layout, tag, line.source, f"{repository}:{tag}")
    put(line.source, signature, cosign_tag(image.digest, "sig"))
    put(line.source, sbom, sbom.digest)
    put_manifest(
        line.source, attached.index_of([attached.entry(sbom.manifest)]), image.digest.replace(":", "-")
    )

    for repository, tag, pushed in ((APP, "v1", image), (APP, "multi", index), (CHART, "1.2.3", chart)):
        assert line.ended(repository, tag)["digest"] == pushed.digest
        pulled = parts.pull(line.destination, f"{repository}:{tag}", line.folder / f"pulled-{tag}")
        assert pulled == pushed.digest
    assert line.ended(CHART, "1.2.3")["resource_type"] == "chart"
    at = line.destination
    until("the signature", lambda: at.digest(APP, cosign_tag(image.digest, "sig")) == signature.digest)
    until("the list", lambda: listed(at, image.digest) == [attached.entry(sbom.manifest)])
    assert get(at, f"manifests/{sbom.digest}") == sbom.manifest.body
    assert get(at, f"blobs/{sbom.blob_descriptors[1].digest}") == image.digest.encode() * 10
    assert line.log(status="Failed") == []
