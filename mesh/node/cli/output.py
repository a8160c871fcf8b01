"""The output of commands: tables for people, JSON and YAML for programs, one line of progress on stderr."""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from operator import methodcaller
from typing import Any

import orjson


class Format(StrEnum):
    """The output formats of every command that shows something."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class WideFormat(StrEnum):
    """The output formats of a command whose items have more fields than fit on a line."""

    TABLE = "table"
    WIDE = "wide"  # a table too
    JSON = "json"
    YAML = "yaml"

    @property
    def style(self) -> Format:
        """The format, with wide as a table."""
        return Format.TABLE if self is WideFormat.WIDE else Format(self.value)


Item = Mapping[str, Any]
Columns = Mapping[str, Callable[[Item], object]]


def fields(*names: str) -> Columns:
    """Returns columns that show fields unchanged: `last_seen` below the title LAST SEEN."""
    return {name.upper().replace("_", " "): methodcaller("get", name) for name in names}


def show(items: Sequence[Item], columns: Columns, style: Format, *, one: bool = False) -> None:
    """Prints a list, or with `one` its only item by itself."""
    if style is Format.TABLE:
        print_table(items, columns)
        return
    document = items[0] if one else list(items)
    if style is Format.JSON:
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        import yaml  # noqa: PLC0415  # as below

        print(yaml.safe_dump(document, sort_keys=False), end="")


def print_table(items: Iterable[Item], columns: Columns, *, header: bool = True) -> None:
    """Prints aligned columns."""
    from mesh.node.cli import table  # noqa: PLC0415  # a command that prints no table starts faster without it

    rows = ([_text(value(item)) for value in columns.values()] for item in items)
    table.print_rows(list(columns), rows, show_header=header)


class ProgressLine:
    """Progress on stderr: one line rewritten in place on a terminal, elsewhere a line for each change or nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._on_terminal, self._quiet, self._last = sys.stderr.isatty(), quiet, ""

    def show(self, line: str) -> None:
        """Shows a line unless it is the last one."""
        if line == self._last:
            return
        self._last = line
        if self._on_terminal:
            rewrite_line(line)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leaves the last line on the terminal."""
        if self._on_terminal:
            print(file=sys.stderr)


def rewrite_line(line: str) -> None:
    """Writes over the last line of the terminal, cut to its width: a wrapped line cannot be rewritten."""
    width = shutil.get_terminal_size().columns
    shown = line if len(line) < width else f"{line[: width - 4]}..."
    print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def size(count: int | None) -> str | None:
    """Formats a number of bytes in binary units: `6.0 MiB`."""
    if count is None:
        return None
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def time(text: str | None) -> str | None:
    """Formats an ISO 8601 time to the second, without its zone: commands show UTC."""
    return text[:19].replace("T", " ") if text is not None else None


def lag(milliseconds: float | None) -> str | None:
    """Formats a duration in milliseconds as seconds: `1.5 s`."""
    return f"{milliseconds / 1000:.1f} s" if milliseconds is not None else None
