"""The order in which instances are listed, kept while they are declared one by one and in parts.

Where instances share a domain the first listed wins, on every node and after every restart. So control writes the
position of each into its record: those that a document lists share out the positions they had, in the document's order,
and new ones come last. A document with all of them sets the whole order; what is declared alone keeps its position.
"""

from collections.abc import Mapping, Sequence


def positions(listed: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """Returns the position of each listed key, given the positions of all that are declared already."""
    had = sorted(before[key] for key in listed if key in before)
    first_new = max(before.values(), default=-1) + 1
    places = [*had, *range(first_new, first_new + len(listed) - len(had))]
    return dict(zip(listed, places, strict=True))
