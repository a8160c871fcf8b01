"""The output of the demo: on a terminal of 80 columns, and through a pipe."""

import subprocess
import sys

from rich.console import Console

from mesh.node.demo import progress, release, topology

_WIDTH = 80


def test_each_place_is_one_line_of_the_live_table() -> None:
    """At its widest: everything has arrived, late."""
    image = release.make("game/compliance")
    pullable = dict.fromkeys(topology.BOTH_TAGS, 100.25)
    places = {
        name: progress.Place(None, layers=5, first_layer=100.25, pullable=pullable)
        for name in topology.places()
    }
    console = Console(width=_WIDTH)
    with console.capture() as capture:
        console.print(progress._table(progress.Progress(image, places)))
    title, header, *rows = capture.get().splitlines()
    assert title.startswith("game/compliance, ")
    assert header.split() == ["PLACE", "BLOBS", "FIRST", "AT", *topology.BOTH_TAGS]
    assert [row.split()[0] for row in rows] == list(places)


def test_the_demo_ends_by_itself_and_no_line_is_wider_than_a_terminal() -> None:
    demo = [sys.executable, "-m", "mesh.node", "demo"]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if len(line) > _WIDTH] == []
    for place in topology.places():
        assert any(line.startswith(place) and " current " in line for line in lines)
    assert f"  outside: no {topology.MAINLAND_TAG}, no game/compliance, none of their layers" in lines
