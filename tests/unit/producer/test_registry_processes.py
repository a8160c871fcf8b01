"""Which processes of registries are noted: each once, and not as many as a sender invents."""

from datetime import UTC, datetime

from producer.registry_processes import RegistryProcesses
from schemas import codec
from schemas.registry_processes import RegistryProcess
from schemas.topology import Instance
from tests.support.manual_clock import ManualClock

GAME = Instance.model_validate(
    {"name": "game", "account": "game", "region": "beijing", "url": "https://cn.example.com"}
)


async def test_a_process_is_noted_once_it_is_on_the_log_and_then_no_more() -> None:
    processes = RegistryProcesses(ManualClock(datetime(2026, 3, 1, tzinfo=UTC)))
    for _ in range(2):  # the first was not accepted by the log
        (record,) = processes.records_of(GAME, "one")
    decoded = codec.decode(record.value or b"", RegistryProcess)
    assert (record.topic, record.key) == ("mesh.beijing.status", decoded.key)
    assert (decoded.instance, decoded.process) == ("game", "one")
    processes.note_written(GAME, "one")
    assert processes.records_of(GAME, "one") == ()
    assert processes.records_of(GAME, None) == ()


async def test_invented_processes_are_noted_one_a_second() -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    processes = RegistryProcesses(clock)
    noted = 0
    for number in range(100):
        if processes.records_of(GAME, f"process {number}"):
            processes.note_written(GAME, f"process {number}")
            noted += 1
        await clock.sleep(0.1)
    assert noted == 10
