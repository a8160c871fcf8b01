"""Compares a declaration with the one before it. Pure."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from schemas.declared import Declared

ChangeKind = Literal["created", "changed", "unchanged"]


@dataclass(frozen=True, slots=True)
class Change:
    """What applying a document did to one declaration.

    Attributes:
        key: `<noun>/<name>`.
        change: What happened to it.
        rev: The revision by which it holds; None in a dry run for what would be written.
        note: Advice for whoever declares it, although it is correct.
        fields: The fields that have other values than before.
    """

    key: str
    change: ChangeKind
    rev: int | None
    note: str | None = None
    fields: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns the change as the API shows it, without an empty note and empty fields."""
        return {
            field: value
            for field, value in asdict(self).items()
            if field not in ("note", "fields") or value not in (None, ())
        }


def compare(
    before: Declared | None, after: Declared, *, is_moved: bool
) -> tuple[ChangeKind, tuple[str, ...]]:
    """Returns the kind of change and the changed fields.

    Args:
        before: What was declared under the same key.
        after: What is declared now.
        is_moved: Whether an instance has another position in the list, which shows as the field `position`.
    """
    if before is None:
        return "created", ()
    names = type(after).model_fields
    fields = tuple(name for name in names if getattr(after, name) != getattr(before, name))
    fields += ("position",) if is_moved else ()
    return ("changed" if before != after or is_moved else "unchanged"), fields
