"""Each kind of artifact between real registries: docker-registry 2.8, distribution 3, zot and go-containerregistry's.

Pushed to the source, announced by its own notification or, where it sends none, found by `regmesh sync`, and checked in
the destination without our client. zot and go-containerregistry's (`ggcr`) have the referrers API. Three pairs without
zot, in which each is source once and destination once, always run; all with `--all` (make test-all), those with zot
where one is on PATH.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.test_line import (
    Line,
    kafka,  # noqa: F401
    line,  # noqa: F401
    receiver,  # noqa: F401
)
from tests.live.test_referrers import get, listed, put, put_manifest
from tests.support import attached, images, parts
from tests.support.attached import SBOM, attachment, cosign_tag
from tests.support.parts import Distribution, until

Make = Callable[[Path], Distribution]
KINDS: dict[str, Make] = {
    "2.8": Distribution,
    "3": lambda folder: Distribution(folder, program=str(parts.DISTRIBUTION_3)),
    "ggcr": parts.GoContainerRegistry,
    "zot": parts.Zot,
}
RING = [("2.8", "3"), ("3", "ggcr"), ("ggcr", "2.8")]
MORE = pytest.mark.more("the pairs of real registries")


def _marks(*pair: str) -> list[pytest.MarkDecorator]:
    return [*([] if pair in RING else [MORE]), *([pytest.mark.real("zot")] if "zot" in pair else [])]


PAIRS = [
    pytest.param((source, destination), marks=_marks(source, destination), id=f"{source} to {destination}")
    for source in KINDS
    for destination in KINDS
]  # fmt: skip
HELM = "application/vnd.cncf.helm.config.v1+json"
APP, CHART = "game/app", "game/chart"

pytestmark = [
    pytest.mark.real("docker-registry", "distribution-3", "ggcr", "skopeo"),
    pytest.mark.parametrize("line", ["sqlite"], indirect=True),
]


@pytest.fixture(params=PAIRS)
def registries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Distribution, Distribution]]:
    source, destination = (KINDS[name] for name in request.param)
    made = source(tmp_path / "cn"), destination(tmp_path / "eu")
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
    _attach(line.source, image, sbom)
    if not line.source.notifies:
        done = parts.run_regmesh("sync", "release-to-eu", "--wait", "--server", line.api)
        assert done.returncode == 0, done.stderr

    for repository, tag, pushed in ((APP, "v1", image), (APP, "multi", index), (CHART, "1.2.3", chart)):
        assert line.ended(repository, tag)["digest"] == pushed.digest
        pulled = parts.pull(line.destination, f"{repository}:{tag}", line.folder / f"pulled-{tag}")
        assert pulled == pushed.digest
    assert line.ended(CHART, "1.2.3")["resource_type"] == "chart"
    at = line.destination
    until("the signature", lambda: at.digest(APP, cosign_tag(image.digest, "sig")) == signature.digest)
    _is_listed(at, image, sbom)
    assert get(at, f"manifests/{sbom.digest}") == sbom.manifest.body
    assert get(at, f"blobs/{sbom.blob_descriptors[1].digest}") == image.digest.encode() * 10
    assert line.log(status="Failed") == []


def _attach(source: Distribution, image: images.Image, sbom: images.Image) -> None:
    """As a client does: where the registry does not list it by itself, it goes into the list under the tag."""
    put(source, sbom, sbom.digest)
    if not source.lists_referrers:
        put_manifest(
            source, attached.index_of([attached.entry(sbom.manifest)]), image.digest.replace(":", "-")
        )
    assert _referrers(source, image) == [sbom.digest]


def _is_listed(at: Distribution, image: images.Image, sbom: images.Image) -> None:
    if at.lists_referrers:
        until("the API lists it", lambda: _referrers(at, image) == [sbom.digest])
    else:
        until("the list", lambda: listed(at, image.digest) == [attached.entry(sbom.manifest)])


def _referrers(registry: Distribution, image: images.Image) -> list[str]:
    """As a client finds them: by the API, or in the list under the tag."""
    if registry.lists_referrers:
        entries = json.loads(get(registry, f"referrers/{image.digest}"))["manifests"]
    else:
        entries = listed(registry, image.digest) or []
    return [entry["digest"] for entry in entries]
