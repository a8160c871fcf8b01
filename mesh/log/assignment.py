"""Who reads which partition: an even share that moves as little as it can. Pure.

Each topic is shared on its own, so that no member gets all of a busy topic and another all of a quiet one; what does
not divide evenly goes to the members that have least so far.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeVar

from mesh.log.port import Partition

M = TypeVar("M")

TagOwners = Mapping[Partition, M]


def share(
    partitions: Sequence[Partition], readers: Mapping[str, Sequence[M]], owners: TagOwners[M]
) -> dict[Partition, M]:
    """The new owner of each partition.

    `readers` are the members that want each topic, `owners` who owned what until now (members that are gone may still
    stand there). A topic that nobody reads is left out.
    """
    shared: dict[Partition, M] = {}
    load: dict[M, int] = {member: 0 for members in readers.values() for member in members}
    for topic in sorted({partition.topic for partition in partitions}):
        mine = sorted(partition for partition in partitions if partition.topic == topic)
        members = readers.get(topic, ())
        if members:
            shared |= _share_one(mine, members, owners, load)
    return shared


def _share_one(
    partitions: Sequence[Partition], members: Sequence[M], owners: TagOwners[M], load: dict[M, int]
) -> dict[Partition, M]:
    quota = _quotas(partitions, members, owners, load)
    shared: dict[Partition, M] = {}
    for partition in partitions:
        owner = owners.get(partition)
        if owner is not None and quota.get(owner, 0) > 0:
            shared[partition] = owner
            quota[owner] -= 1
    free = (partition for partition in partitions if partition not in shared)
    for member, count in quota.items():
        shared |= dict.fromkeys(islice(free, count), member)
    for member in shared.values():
        load[member] += 1
    return shared


def _quotas(
    partitions: Sequence[Partition], members: Sequence[M], owners: TagOwners[M], load: Mapping[M, int]
) -> dict[M, int]:
    """How many each gets; one more for those with the least, and among equals for those that hold more already."""
    each, extra = divmod(len(partitions), len(members))
    held = {member: sum(owners.get(partition) == member for partition in partitions) for member in members}
    hungry = sorted(members, key=lambda member: (load[member], -held[member]))
    return {member: each + (place < extra) for place, member in enumerate(hungry)}
