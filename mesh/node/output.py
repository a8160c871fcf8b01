"""How answers look at a terminal: a table for people, JSON and YAML for programs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import orjson


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


_WIDEST = 10_000  # characters of a line

Columns = Mapping[str, Callable[[Mapping[str, Any]], object]]


def show(items: Sequence[Mapping[str, Any]], columns: Columns, style: Format, *, one: bool = False) -> None:
    """Print a list, or with `one` its only item as itself."""
    if style is Format.TABLE:
        print_table(items, columns)
    elif style is Format.JSON:
        found = items[0] if one else list(items)
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        import yaml  # noqa: PLC0415  # as below

        print(yaml.safe_dump(items[0] if one else list(items), sort_keys=False), end="")


def print_table(items: Iterable[Mapping[str, Any]], columns: Columns) -> None:
    """Aligned columns. Nothing is cut: a terminal wraps, a pipe gets whole lines."""
    from rich.console import Console  # noqa: PLC0415  # a command that prints no table starts without it
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True)
    for item in items:
        table.add_row(*(_text(value(item)) for value in columns.values()))
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=_WIDEST)
    console.width = console.measure(table).maximum
    console.print(table)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def size(count: int) -> str:
    """Bytes for people, in binary units."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError
