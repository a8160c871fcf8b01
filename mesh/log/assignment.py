"""Assigning partitions to the members of a group: evenly, and moving as few as possible. Pure.

Each topic is shared on its own, so that no member gets all of a busy topic and another all of a quiet one. The
remainder goes to the members that have the fewest partitions so far.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeVar

from mesh.log.port import Partition

M = TypeVar("M")

Owners = Mapping[Partition, M]


def assign(
    partitions: Sequence[Partition], readers: Mapping[str, Sequence[M]], owners: Owners[M]
) -> dict[Partition, M]:
    """Returns the new owner of each partition; leaves out topics without a reader.

    Args:
        partitions: All partitions of the group.
        readers: The members that read each topic.
        owners: The present owners; members that have left may still be among them.
    """
    assigned: dict[Partition, M] = {}
    load: dict[M, int] = {member: 0 for members in readers.values() for member in members}
    for topic in sorted({partition.topic for partition in partitions}):
        of_topic = sorted(partition for partition in partitions if partition.topic == topic)
        members = readers.get(topic, ())
        if members:
            assigned |= _assign_topic(of_topic, members, owners, load)
    return assigned


def _assign_topic(
    partitions: Sequence[Partition], members: Sequence[M], owners: Owners[M], load: dict[M, int]
) -> dict[Partition, M]:
    quota = _quotas(partitions, members, owners, load)
    assigned: dict[Partition, M] = {}
    for partition in partitions:
        owner = owners.get(partition)
        if owner is not None and quota.get(owner, 0) > 0:
            assigned[partition] = owner
            quota[owner] -= 1
    free = (partition for partition in partitions if partition not in assigned)
    for member, count in quota.items():
        assigned |= dict.fromkeys(islice(free, count), member)
    for member in assigned.values():
        load[member] += 1
    return assigned


def _quotas(
    partitions: Sequence[Partition], members: Sequence[M], owners: Owners[M], load: Mapping[M, int]
) -> dict[M, int]:
    """Returns how many partitions each member gets.

    The remainder goes to the members with the least load, among equals to those that own more of the topic already.
    """
    each, extra = divmod(len(partitions), len(members))
    owned = {member: sum(owners.get(partition) == member for partition in partitions) for member in members}
    ranked = sorted(members, key=lambda member: (load[member], -owned[member]))
    return {member: each + (rank < extra) for rank, member in enumerate(ranked)}
