"""Admission: which checks happen when, and what anonymous clients see of a source."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from consumer.image.admission import Check, PublicView, Stage, checks_at
from consumer.task import Task
from mesh.errors import ConfirmedNotFound, Denied, Unreachable
from mesh.registry.port import Descriptor, Registry
from mesh.rules.matching.compiled_rule import CompiledRule
from schemas.completions import Side
from schemas.events import Action, Event
from schemas.names import Digest, MediaType, Repository, Tag
from schemas.rules import Rule
from schemas.topology import Instance
from tests.support.manual_clock import ManualClock

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = Digest("sha256:" + "ab" * 32)
FOUND = Descriptor(MediaType("application/vnd.oci.image.manifest.v1+json"), DIGEST, 7)


@dataclass
class Answers:
    """A registry that answers every HEAD in one way."""

    answer: Descriptor | Exception | None
    asked: int = 0

    async def resolve(self, repository: Repository, reference: object) -> Descriptor | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def read_manifest(self, repository: Repository, reference: object) -> None:
        raise ConfirmedNotFound("it has nothing", side=Side.SOURCE, status=404)

    async def ping(self) -> None:
        """It answers."""


def _task(repository: str = "team/app", *, public_only: bool = True) -> Task:
    fields: dict[str, Any] = {"account": "a", "region": "eu", "url": "http://127.0.0.1:5000"}
    rule = Rule(name="r", source="cn", destination="eu", public_only=public_only)
    event = Event(
        id="e", time=NOW, place="cn", region="eu", action=Action.MANIFEST_PUSH, repository=repository, tag="1",
        digest=DIGEST, occurred_at=NOW, rules_rev=0,
    )  # fmt: skip
    return Task(
        event=event, compiled=CompiledRule(rule), source=Instance(name="cn", **fields).as_place(),
        destination=Instance(name="eu", **fields).as_place(),
        repository=Repository(repository), destination_repository=Repository(repository), tag=Tag("1"), digest=DIGEST,
        rules_rev=0,
    )  # fmt: skip


def _view(everybody: Answers, ours: Answers) -> tuple[PublicView, ManualClock]:
    clock = ManualClock(NOW)
    return PublicView(lambda _: cast(Registry, everybody), lambda _: cast(Registry, ours), clock), clock


async def _said(view: PublicView, task: Task) -> str | None:
    refusal = await view.refusal(task, lambda: False)
    return refusal.code if refusal is not None else None


@pytest.mark.parametrize(
    ("everybody", "ours", "code"),
    [
        (FOUND, FOUND, None),
        (Denied("no", side=Side.SOURCE), FOUND, "not_public"),
        (None, FOUND, "not_public"),  # some registries answer 404 for what one may not know of
        (Denied("no", side=Side.SOURCE), None, "source_gone"),
        (None, None, "source_gone"),
    ],
)
async def test_what_is_said_of_what_is_seen(
    everybody: Descriptor | Exception | None, ours: Descriptor | None, code: str | None
) -> None:
    view, _ = _view(Answers(everybody), Answers(ours))
    assert await _said(view, _task()) == code


async def test_a_newer_push_is_left_to_look_for_itself() -> None:
    view, _ = _view(Answers(None), Answers(None))
    refusal = await view.refusal(_task(), lambda: True)
    assert refusal is not None
    assert refusal.code == "superseded"


async def test_an_answer_is_believed_for_a_minute_of_its_repository_alone() -> None:
    everybody = Answers(FOUND)
    view, clock = _view(everybody, Answers(FOUND))
    assert await _said(view, _task()) is None
    everybody.answer = Denied("private now", side=Side.SOURCE)
    await clock.sleep(59)
    assert await _said(view, _task()) is None
    assert await _said(view, _task("team/other")) == "not_public"
    await clock.sleep(2)
    assert await _said(view, _task()) == "not_public"
    everybody.answer = FOUND
    await clock.sleep(61)
    assert await _said(view, _task()) is None


async def test_who_does_not_answer_is_asked_again_and_nothing_is_believed() -> None:
    everybody = Answers(Unreachable("away", side=Side.SOURCE))
    view, _ = _view(everybody, Answers(FOUND))
    with pytest.raises(Unreachable):
        await _said(view, _task())
    everybody.answer = FOUND
    assert await _said(view, _task()) is None


async def test_a_rule_that_does_not_ask_for_it_costs_no_question() -> None:
    everybody = Answers(FOUND)
    view, _ = _view(everybody, Answers(FOUND))
    assert await _said(view, _task(public_only=False)) is None
    assert everybody.asked == 0


@pytest.mark.parametrize("stage", Stage)
def test_everything_is_checked_before_each_stage_of_a_tag(stage: Stage) -> None:
    assert checks_at(stage, _task()) == set(Check)


def test_an_untagged_push_is_not_checked_before_it_proves_to_be_a_task() -> None:
    untagged = replace(_task(), tag=None)
    assert checks_at(Stage.START, untagged) == set()
    assert checks_at(Stage.WRITE, untagged) == set(Check)


@pytest.mark.parametrize("stage", Stage)
def test_a_deletion_follows_whether_or_not_the_source_was_public(stage: Stage) -> None:
    assert checks_at(stage, replace(_task(), operation="delete")) == {Check.DECLARED, Check.OWNER}
