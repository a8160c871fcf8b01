"""Tables at a terminal, a module of their own because Rich takes long to import."""

from collections.abc import Iterable, Sequence
from itertools import chain

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table

_MAX_WIDTH = 10_000  # characters of a line


class Terminal(Console):
    """A console that raises when its reader goes away, as `print` does; Rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        """Raises `BrokenPipeError` for the caller that prints."""
        raise BrokenPipeError


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]], *, show_header: bool) -> None:
    """Prints aligned columns, without cutting any text and without blanks at the ends of lines."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=show_header)
    for name in header:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, width=_MAX_WIDTH)
    console.width = console.measure(table).maximum
    lines = [[*_trim_end(line), Segment.line()] for line in console.render_lines(table, pad=False)]
    console.print(Segments(chain.from_iterable(lines)), end="")


def _trim_end(line: list[Segment]) -> list[Segment]:
    """Removes padding, which wraps into empty lines on a narrow terminal."""
    while line and not line[-1].text.strip():
        line.pop()
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else line
