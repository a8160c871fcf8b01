"""What an instance's own registry last said that it has not: that holds while it is silent.

Without it one registry that is away would hold up, by its place in the list, the tags of all instances after it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from mesh.gateway.request import Asked
from mesh.gateway.verdict import Meaning
from schemas.topology import Place

_MOST_REMEMBERED = 100_000  # names; the ones that were asked for longest ago are forgotten


@dataclass(slots=True)
class NegativeCache:
    _absent: OrderedDict[tuple[Place, str], None] = field(default_factory=OrderedDict)

    def take(self, place: Place, asked: Asked, said: Meaning) -> None:
        if said is Meaning.TROUBLE:
            return
        self._absent.pop((place, asked.path), None)
        if said is Meaning.ABSENT and asked.is_by_name:
            self._absent[place, asked.path] = None
            if len(self._absent) > _MOST_REMEMBERED:
                self._absent.popitem(last=False)

    def was_absent(self, place: Place, asked: Asked) -> bool:
        return (place, asked.path) in self._absent
