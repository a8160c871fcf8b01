"""The short form of `make soak`, and the checker itself: it finds what is planted, and uses nothing of the product."""

import ast
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.soak import checker, run
from tests.soak.checker import Kind
from tests.soak.ledger import Ledger, Name, Timeline, Write
from tests.soak.poller import Poller
from tests.soak.wire import Image, Registry, digest_of, image
from tests.support import parts
from tests.support.parts import Distribution

real = pytest.mark.real("docker-registry")

ROOT = Path(__file__).parent.parent.parent
PRODUCT = {"mesh", "producer", "consumer", "schemas"}
APP = Name("team/app", "v1")


@real
@pytest.mark.parametrize("scenario", ["up", "registries", "ingress"])
def test_nothing_is_lost_wrong_or_back_after_faults(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        found = run.run(
            scenario, tmp_path, seed=1, count=None, short=True, report=lambda text: print(f"\n{text}", end="")
        )
    assert found.pushes >= 20
    assert found.notified > 0
    assert [str(it) for it in found.findings] == []
    assert [str(it) for it in found.steps_back] == []
    assert found.settled is not None
    assert [label for label, seconds in found.recoveries if seconds is None] == []


@dataclass
class Pair:
    """A source and a destination that somebody keeps equal by hand, and their ledger."""

    source: Distribution
    destination: Distribution
    ledger: Ledger

    def push(self, name: Name, pushed: Image) -> None:
        write = self.ledger.begin(name, pushed.digest)
        with Registry(self.source.url) as registry:
            registry.push(*name, pushed)
        self.ledger.acknowledge(write)
        self.copy(name, pushed)

    def copy(self, name: Name, pushed: Image) -> None:
        with Registry(self.destination.url) as registry:
            registry.push(*name, pushed)

    def walk(self) -> list[tuple[Kind, Name]]:
        found = checker.walk(self.source.url, self.places(), self.ledger)
        return [(it.kind, it.name) for it in found]

    def places(self) -> dict[str, str]:
        return {"there": self.destination.url}

    def bytes_of(self, blob: bytes) -> Path:
        hexes = digest_of(blob).removeprefix("sha256:")
        folder = self.destination.folder / "data/docker/registry/v2/blobs/sha256"
        return folder / hexes[:2] / hexes / "data"


def delete(registry: Distribution, name: Name) -> None:
    with Registry(registry.url) as opened:
        digest = opened.digest(*name)
        assert digest is not None
        opened.delete(name.repository, digest)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with parts.distributions(tmp_path, "here", "there") as (source, destination):
        source.start()
        destination.start()
        made = Pair(source, destination, Ledger(tmp_path / "ledger.jsonl"))
        for number in range(3):
            made.push(Name("team/app", f"v{number}"), image(f"layer {number}".encode() * 100))
        yield made


@real
def test_the_checker_finds_nothing_where_all_is_well(pair: Pair) -> None:
    assert pair.walk() == []
    assert checker.settle(pair.source.url, pair.places(), pair.ledger, within=5) is not None


@real
def test_the_checker_finds_a_lost_tag(pair: Pair) -> None:
    delete(pair.destination, APP)
    assert pair.walk() == [(Kind.LOST, APP)]
    assert checker.settle(pair.source.url, pair.places(), pair.ledger, within=1) is None


@real
def test_the_checker_finds_a_moved_tag_and_one_that_the_source_does_not_have(pair: Pair) -> None:
    pair.copy(APP, image(b"foreign"))
    assert pair.walk() == [(Kind.WRONG, APP)]
    pair.copy(Name("team/other", "v1"), image(b"foreign"))
    assert pair.walk() == [(Kind.WRONG, APP), (Kind.WRONG, Name("team/other", "v1"))]


@real
@pytest.mark.parametrize("damage", ["missing", "cut short", "another byte"])
def test_the_checker_finds_bytes_that_are_not_right(pair: Pair, damage: str) -> None:
    blob = b"layer 1" * 100
    file = pair.bytes_of(blob)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(blob[:-1] if damage == "cut short" else blob[:-1] + b"x")
    assert pair.walk() == [(Kind.WRONG, APP)]


@real
def test_the_checker_finds_manifest_bytes_that_are_not_right(pair: Pair) -> None:
    with Registry(pair.source.url) as registry:
        body = registry.manifest(*APP)
    pair.bytes_of(body).write_bytes(body + b"\n")
    assert (Kind.WRONG, APP) in pair.walk()


@real
def test_a_source_that_lost_what_it_acknowledged_is_reported_as_such(pair: Pair) -> None:
    for registry in (pair.source, pair.destination):
        delete(registry, APP)
    assert pair.walk() == [(Kind.SOURCE, APP)]


@real
def test_the_poller_finds_a_step_back_once_and_a_recovery(pair: Pair) -> None:
    with closing(Poller(pair.places(), pair.ledger)) as poller:
        check_poller(pair, poller)


def check_poller(pair: Pair, poller: Poller) -> None:
    poller.poll()
    old, new = image(b"old"), image(b"new")
    pair.push(APP, old)
    poller.poll()
    pair.push(APP, new)
    poller.poll()
    assert poller.steps_back == []
    pair.copy(APP, old)
    for _ in range(3):
        poller.poll()
    assert [(it.name, it.digest) for it in poller.steps_back] == [(APP, old.digest)]
    watch = poller.watch()
    poller.poll()
    assert watch.seconds is None
    pair.copy(APP, new)
    poller.poll()
    assert watch.seconds is not None
    assert len(poller.steps_back) == 1


def test_a_deleted_tag_that_comes_back_with_what_it_named_is_a_step_back() -> None:
    history = [Write(1, *APP, "a"), Write(2, *APP, None), Write(3, *APP, "b"), Write(4, *APP, None)]
    timeline = Timeline("there", APP)
    assert [timeline.see(digest, history) for digest in (None, "a", None)] == [None, None, None]
    assert timeline.has_reached(history[3], history)  # the reading may be of either deletion
    back = timeline.see("a", history)
    assert back is not None
    assert (back.newest, back.seen) == (2, 1)
    assert not timeline.has_reached(history[0], history)
    assert timeline.see("b", history) is None
    assert not timeline.has_reached(history[3], history)


def test_the_checker_uses_nothing_of_the_product() -> None:
    left, seen = [ROOT / f"tests/soak/{name}.py" for name in ("run", "checker")], set[Path]()
    while left:
        file = left.pop()
        seen.add(file)
        for module in imports_of(file):
            assert module.partition(".")[0] not in PRODUCT, f"{file.name} imports {module}"
            path = ROOT / f"{module.replace('.', '/')}.py"
            left += [path] if path.exists() and path not in seen else []
    assert {"wire.py", "ledger.py", "gate.py", "parts.py", "kafka_broker.py"} <= {it.name for it in seen}


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (it.name for it in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{it.name}" for it in node.names)
