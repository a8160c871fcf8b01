"""Processor time that a measurement took: of the registries, of what copies, and of everything else."""

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Seconds of one core, user and system."""

    registries: float
    copier: float  # our process, or the programs that were started and waited for
    others: float  # not of this bench: with more than a few tenths the round was disturbed

    def __str__(self) -> str:
        return f"processor: registries {self.registries:.1f} s, it {self.copier:.1f} s, others {self.others:.1f} s"


class Meter:
    """Measures from its construction until `read`."""

    def __init__(self, registries: Iterable[int], mesh: int) -> None:
        self._registries, self._mesh = list(registries), mesh
        self._before = self._now()

    def read(self, *, mesh_copies: bool) -> Spent:
        """Returns the time since the start; the copier is the mesh or, without `mesh_copies`, this bench's programs."""
        machine, registries, mesh, programs, own = (
            now - before for now, before in zip(self._now(), self._before, strict=True)
        )
        others = machine - registries - mesh - programs - own
        return Spent(registries, mesh if mesh_copies else programs, others)

    def _now(self) -> tuple[float, float, float, float, float]:
        own, programs = (
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        return _machine(), sum(map(_of, self._registries)), _of(self._mesh), programs, own


def _of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine() -> float:
    """Returns the busy time of all cores, without waits for a disk."""
    user, nice, system, _idle, _waiting, irq, soft, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, soft, steal))) / _TICKS
