"""`regmesh relay-keys`: prints the keys of one region, for agents that are not trusted with the mesh's relay secret."""

import os
from pathlib import Path
from typing import Annotated

from consumer.blobs.relay.signing import MeshKeys, parse_keys
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput
from mesh.node import mesh_file
from mesh.node.cli.daemon_options import parse_region
from mesh.node.cli.options import argument, option
from mesh.rules.validation import declarations
from schemas.declared import Declared
from schemas.names import Region
from schemas.topology import RegionDeclaration, Replica


def relay_keys(
    region: Annotated[str, argument("The region whose keys are printed.", "REGION")],
    file: Annotated[Path, option("The mesh.yaml that is applied.", "--file", "-f")],
) -> None:
    """Print the keys of REGION's relay.

    They are derived from the mesh's relay secret, which this command reads as the agents do. Store the line as the
    value of that secret for REGION's agents: with it they can speak as no other region. Example: regmesh relay-keys
    shanghai -f mesh.yaml
    """
    name, found = parse_region(region), mesh_file.read(file)
    mesh_file.check(found)
    things = [item.thing for item in declarations.judge(found.document)[0]]
    regions = {it.name: it for it in things if isinstance(it, RegionDeclaration)}
    if name not in regions:
        raise InvalidInput(f"{file} declares no region {name!r}")
    if (relay := regions[name].relay) is None:
        raise InvalidInput(f"{file} declares no relay of region {name!r}")
    keys = parse_keys(Secrets(os.environ).get(relay.secret))
    if not isinstance(keys, MeshKeys):
        raise InvalidInput(f"secret {relay.secret!r} has the keys of one region: use the mesh's secret here")
    print(keys.keys_of_region(name, _asked_by(name, regions[name].jurisdiction, things)).text())


def _asked_by(region: Region, jurisdiction: str, things: list[Declared]) -> list[Region]:
    """Returns the regions that may send blobs to `region`: they share an instance and its jurisdiction."""
    within = {
        it.name for it in things if isinstance(it, RegionDeclaration) and it.jurisdiction == jurisdiction
    }
    replicas = [it for it in things if isinstance(it, Replica)]
    own = {it.instance for it in replicas if it.region == region}
    return sorted({it.region for it in replicas if it.instance in own and it.region in within} - {region})
