"""What is surplus, read by pages: exactly what an agent saw at the replica in time, and the execution did not list."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert

from mesh.control.executions import prune
from mesh.control.storage.tables import images, metadata, sync_log
from mesh.control.sync_log.entry import row_of
from schemas.completions import Status, task_id_of
from schemas.events import Cause
from schemas.names import PlaceName, Repository, Tag
from tests.support.control_site import DIGEST, NOW, completion

REPLICA = "cn@shanghai"
ROW = {"id": "look", "rule": REPLICA, "start_time": NOW}
name = st.tuples(
    st.sampled_from(["a", "a-b", "a/b", "a0", "b/c"]), st.sampled_from(["1", "1.0", "V1", "_x", "v1"])
)
tag = st.fixed_dictionaries(
    {
        "place": st.sampled_from([REPLICA, REPLICA, REPLICA, "cn", "cn@chengdu"]),
        "digest": st.sampled_from([DIGEST, DIGEST, DIGEST, None]),
        "written_by": st.sampled_from([Cause.ARRIVAL, Cause.ARRIVAL, Cause.NOTIFICATION, Cause.LISTING]),
        "age": st.sampled_from([-1, 0, 1, 3600]),  # seconds before the execution began
        "listed": st.booleans(),
    }
)


@given(held=st.dictionaries(name, tag, max_size=12), page=st.integers(1, 6))
def test_pages_find_all_of_it_and_nothing_else(held, page: int) -> None:
    expected = {
        key
        for key, it in held.items()
        if it["place"] == REPLICA and it["digest"] and it["written_by"] is Cause.ARRIVAL and it["age"] > 0
        if not it["listed"]
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune, "_PAGE", page)
        found = _walked(held)
    assert sorted((str(it.repository), str(it.tag)) for it in found) == sorted(expected)
    assert {it.digest for it in found} <= {DIGEST}


def _walked(held):
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            metadata.create_all(connection, tables=[images, sync_log])
            for (repository, text), it in held.items():
                _hold(connection, repository, text, it)
            found, after = [], prune.TagPosition()
            while after is not None:
                some, after = prune._orphaned_page(connection, ROW, after)
                found += some
            return found
    finally:
        engine.dispose()


def _hold(connection, repository: str, text: str, it) -> None:
    values = {
        "place": it["place"],
        "repository": repository,
        "tag": text,
        "digest": it["digest"],
        "tag_version": 1,
    }
    seen = {"since": NOW - timedelta(seconds=it["age"]), "written_by": it["written_by"].value}
    connection.execute(insert(images).values(**values, **seen))
    executions = {"look": it["listed"], "another": True}
    for execution_id in (name for name, listed in executions.items() if listed):
        task_id = task_id_of(execution_id, REPLICA, repository, text)
        end = completion(
            status=Status.FAILED, task_id=task_id, execution_id=execution_id, rule=None,
            replica=PlaceName(REPLICA), repository=Repository(repository), tag=Tag(text),
        )  # fmt: skip
        connection.execute(insert(sync_log).values(row_of(end)))
