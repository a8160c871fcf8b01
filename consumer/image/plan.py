"""What to copy, in which order. Pure: children come before what names them, each thing once."""

from consumer.task import Image, Plan


def make_plan(image: Image) -> Plan:
    """Every blob of every manifest, and the manifests with the root last."""
    blobs = {blob.digest: blob for _, parts in image.manifests for blob in parts.blobs}
    manifests = {manifest.digest: manifest for manifest, _ in image.manifests}
    return Plan(tuple(blobs.values()), tuple(manifests.values()), image.sparse)
