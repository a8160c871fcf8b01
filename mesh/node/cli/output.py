"""How answers look at a terminal: a table for people, JSON and YAML for programs."""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import orjson


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class WideFormat(StrEnum):
    """Of a list that knows more of its items than a terminal's line has room for."""

    TABLE = "table"
    WIDE = "wide"  # a table too
    JSON = "json"
    YAML = "yaml"

    @property
    def style(self) -> Format:
        return Format.TABLE if self is WideFormat.WIDE else Format(self.value)


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


def print_table(items: Iterable[Mapping[str, Any]], columns: Columns, *, header: bool = True) -> None:
    """Aligned columns, as a table shows them to people."""
    from mesh.node.cli import table  # noqa: PLC0415  # a command that prints no table starts without it

    rows = ([_text(value(item)) for value in columns.values()] for item in items)
    table.print_rows(list(columns), rows, show_header=header)


def over_the_last_line(line: str) -> None:
    """Progress on a terminal's stderr, cut to one row of it: what wraps cannot be written over."""
    width = shutil.get_terminal_size().columns
    shown = line if len(line) < width else f"{line[: width - 4]}..."
    print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)


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
