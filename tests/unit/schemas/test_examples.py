"""The stored examples are the promise to other versions: each one decodes, and goes back to what it was."""

import importlib
import pkgutil
from pathlib import Path

import orjson
import pytest

import schemas
from schemas.codec import DecodeError, decode, encode, kind_of
from schemas.completions import Completion
from schemas.envelope import Record
from schemas.state import KINDS, StateRecord

ROOT = Path(schemas.__file__).parent / "examples"
EXAMPLES = sorted(ROOT.glob("*/*/*.json"))


def _kinds() -> dict[str, type[Record]]:
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    found: dict[str, type[Record]] = {}
    waiting = [Record]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if "kind" in vars(model) and model.__module__.startswith("schemas."):
            found[model.kind] = model
    return found


def _read(path: Path) -> tuple[bytes, dict[str, object]]:
    raw = path.read_bytes()
    return raw, orjson.loads(raw)


KINDS_OF_RECORDS = _kinds()
each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))


def test_every_kind_has_an_example_of_its_present_version():
    there = {(path.parts[-3], path.parts[-2]) for path in EXAMPLES}
    present = {(kind, str(model.model_fields["version"].default)) for kind, model in KINDS_OF_RECORDS.items()}
    assert present <= there
    assert {kind for kind, _ in there} <= set(KINDS_OF_RECORDS)


def test_every_noun_and_every_status_of_a_task_has_an_example():
    states = [decode(path.read_bytes(), StateRecord) for path in (ROOT / "state/1.0").glob("*.json")]
    assert {state.noun for state in states} == set(KINDS)
    ends = [decode(path.read_bytes(), Completion) for path in (ROOT / "completion/1.0").glob("*.json")]
    assert {str(end.status) for end in ends} == {"Succeed", "Failed", "Skipped", "Stopped"}


@each_example
def test_it_decodes_and_re_encodes_to_the_same_meaning(path):
    raw, meaning = _read(path)
    assert kind_of(raw) == path.parts[-3]
    assert meaning["version"] == path.parts[-2]
    assert orjson.loads(encode(decode(raw, KINDS_OF_RECORDS[path.parts[-3]]))) == meaning


@each_example
def test_a_newer_minor_version_is_read_and_passed_on_whole(path):
    _, meaning = _read(path)
    newer = {**meaning, "version": "1.7", "of_a_later_day": {"nested": [1, "two", None]}}
    again = encode(decode(orjson.dumps(newer), KINDS_OF_RECORDS[path.parts[-3]]))
    assert orjson.loads(again) == newer


@each_example
def test_a_newer_major_version_is_an_error_that_keeps_the_bytes(path):
    _, meaning = _read(path)
    newer = orjson.dumps({**meaning, "version": "2.0"})
    with pytest.raises(DecodeError, match=r"2\.0") as caught:
        decode(newer, KINDS_OF_RECORDS[path.parts[-3]])
    assert caught.value.raw == newer


def test_a_state_record_holds_a_thing_that_its_model_reads():
    for path in (ROOT / "state/1.0").glob("*.json"):
        state = decode(path.read_bytes(), StateRecord)
        assert state.thing.key == f"{state.noun}/{state.value['name']}"
