"""A Kafka that wants TLS and a password gets both, and the password goes nowhere else."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.clock import SystemClock
from mesh.errors import LogUnavailable
from mesh.log.kafka import KafkaLog, open_log
from mesh.log.port import Append
from schemas import topics
from tests.support import kafka_broker
from tests.support.kafka_engine import QUICK_TIMEOUTS
from tests.support.reading import read_count, values

pytestmark = [pytest.mark.real("kafka"), pytest.mark.xdist_group("kafka-with-tls")]

_PASSWORD = "correct-horse"
_PROPERTIES = """
listener.security.protocol.map=BROKER:SASL_SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={keystore}
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.broker.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  username="admin" password="other" user_admin="other" user_mesh="{password}";
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of 127.0.0.1 in one file, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate, both = (folder / name for name in ("key.pem", "cert.pem", "both.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=kafka",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    return both


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded-kafka")
    (folder / "extra.properties").write_text(_PROPERTIES.format(keystore=certificate, password=_PASSWORD))
    broker = kafka_broker.start(folder)
    yield broker.bootstrap
    broker.stop()


async def opened(address: str, certificate: Path | None, password: str) -> KafkaLog:
    url = f"kafka://{address}?security_protocol=SASL_SSL&sasl_username=mesh&sasl_password_secret=KAFKA"
    if certificate is not None:
        url += f"&ssl_cafile={certificate}"
    return await open_log(url, clock=SystemClock(), secrets={"KAFKA": password}.get, timeouts=QUICK_TIMEOUTS)


async def test_all_goes_over_tls_with_the_password_of_the_secret(
    address, certificate, region, group_name, caplog
):
    caplog.set_level(logging.DEBUG)
    topic = topics.dead_letters(region)
    log = await opened(address, certificate, _PASSWORD)
    try:
        await log.ensure([topic])
        await log.append([Append(topic, "k", b"v")])
        member = await log.group(group_name, [topic])
        assert values(await read_count(member, 1, within=20)) == [b"v"]
    finally:
        await log.close()
    assert any(record.name.startswith("aiokafka") for record in caplog.records)
    assert _PASSWORD not in caplog.text


@pytest.mark.parametrize("wrong", ["password", "certificate"])
async def test_who_is_refused_learns_by_whom(address, certificate, wrong):
    trusted = None if wrong == "certificate" else certificate
    password = "wrong-horse" if wrong == "password" else _PASSWORD
    with pytest.raises(LogUnavailable, match=rf"{address} \(SASL_SSL\)") as refusal:
        await opened(address, trusted, password)
    assert password not in str(refusal.value)
