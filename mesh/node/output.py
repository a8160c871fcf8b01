"""How answers look at a terminal: a table for people, JSON and YAML for programs."""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Any

import orjson
import yaml
from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Terminal(Console):
    """Rich's ends the process when its reader goes away, out of whatever task prints; ours raises, as `print` does."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


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
        print(yaml.safe_dump(items[0] if one else list(items), sort_keys=False), end="")


def print_table(items: Iterable[Mapping[str, Any]], columns: Columns, *, header: bool = True) -> None:
    """Aligned columns. Nothing is cut: a terminal wraps, a pipe gets whole lines. No line ends with blanks."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=header)
    for name in columns:
        table.add_column(name, no_wrap=True)
    for item in items:
        table.add_row(*(_text(value(item)) for value in columns.values()))
    console = Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, width=_WIDEST)
    console.width = console.measure(table).maximum
    lines = [[*_without_blank_end(line), Segment.line()] for line in console.render_lines(table, pad=False)]
    console.print(Segments(chain.from_iterable(lines)), end="")


def _without_blank_end(line: list[Segment]) -> list[Segment]:
    """What pads a short cell to the width of a long one below it would be empty lines in a narrow terminal."""
    while line and not line[-1].text.strip():
        line.pop()
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else line


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
