"""The order in which instances are listed, kept while they are declared one by one and in parts. Pure.

Where instances share a domain the first listed wins, on every node and after every restart. So control writes the place
of each into its record: those that a document lists take the places they had among all, in the document's order, and
new ones come last. Whoever lists all of them gets the document's order; what is put alone stays where it is.
"""

from collections.abc import Mapping, Sequence


def positions(listed: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """The place of each key that is listed, given the places of all that are declared already."""
    had = sorted(before[key] for key in listed if key in before)
    fresh = max(before.values(), default=-1) + 1
    places = [*had, *range(fresh, fresh + len(listed) - len(had))]
    return dict(zip(listed, places, strict=True))
