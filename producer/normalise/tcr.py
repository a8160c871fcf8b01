"""Triggers of Tencent Container Registry: Harbor's first format with its old type names.

A chart of the old chart service (`uploadChart` without a digest) is no artifact of the registry, so it is ignored; one
that was pushed as an OCI artifact has a digest.
"""

from producer.normalise import harbor
from producer.normalise.outcome import Context, Normalised

_PUSHED = frozenset({"pushImage", "uploadChart"})
_DELETED = frozenset({"deleteImage", "deleteChart"})
_CHARTS = frozenset({"uploadChart", "deleteChart"})


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns pushes and deletions of images and charts; ignores other types."""
    return harbor.read(body, context, pushed=_PUSHED, deleted=_DELETED, only_with_digest=_CHARTS)
