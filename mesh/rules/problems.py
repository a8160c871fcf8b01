"""What is wrong with a declaration, and where in the document it stands."""

from typing import NamedTuple

from schemas.declared import Declared

FieldPath = tuple[str | int, ...]


class Problem(NamedTuple):
    """One mistake in a declaration. Its path is such as `("rules", 0, "filters", 1, "value")`."""

    path: FieldPath
    message: str

    @property
    def where(self) -> str:
        """Returns the path for people: `rules[0].filters[1].value`."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).lstrip(".")

    def below(self, path: FieldPath) -> "Problem":
        """Returns the same problem with its path seen from the document's root."""
        return Problem((*path, *self.path), self.message)


class PlacedDeclaration(NamedTuple):
    """A declared thing and its path in the document."""

    path: FieldPath
    thing: Declared
