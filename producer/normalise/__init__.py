"""Parsing notifications into events: one file for each kind of registry, all with a function `normalise`."""

from collections.abc import Mapping

from producer.normalise import acr, distribution, ecr, google, harbor, quay, tcr, zot
from producer.normalise.outcome import Normalise
from schemas.topology import RegistryKind

NORMALISE: Mapping[RegistryKind, Normalise] = {
    "distribution": distribution.normalise,
    "gitlab": distribution.normalise,  # its registry is a fork that kept the envelope
    "harbor": harbor.normalise,
    "zot": zot.normalise,
    "quay": quay.normalise,
    "acr": acr.normalise,
    "ecr": ecr.normalise,
    "google": google.normalise,
    "tcr": tcr.normalise,
}
