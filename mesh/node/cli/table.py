"""Tables at a terminal. Rich takes a while to be imported: whoever prints none does without."""

from collections.abc import Iterable, Sequence
from itertools import chain

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table

_WIDEST = 10_000  # characters of a line


class Terminal(Console):
    """Rich's ends the process when its reader goes away, out of whatever task prints; ours raises, as `print` does."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]], *, show_header: bool) -> None:
    """Aligned columns. Nothing is cut: a terminal wraps, a pipe gets whole lines. No line ends with blanks."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=show_header)
    for name in header:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, width=_WIDEST)
    console.width = console.measure(table).maximum
    lines = [[*_without_blank_end(line), Segment.line()] for line in console.render_lines(table, pad=False)]
    console.print(Segments(chain.from_iterable(lines)), end="")


def _without_blank_end(line: list[Segment]) -> list[Segment]:
    """What pads a short cell to the width of a long one below it would be empty lines in a narrow terminal."""
    while line and not line[-1].text.strip():
        line.pop()
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else line
