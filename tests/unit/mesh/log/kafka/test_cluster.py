"""Kafka URLs: nothing in them is ignored, and errors do not repeat them."""

import subprocess

import pytest

from mesh.clock import SystemClock
from mesh.errors import InvalidInput
from mesh.log.kafka.cluster import KafkaContext, parse
from mesh.log.kafka.settings import KafkaTimeouts


def _no_secrets(name: str) -> str | None:
    return None


def test_hosts_with_and_without_a_port():
    cluster = parse("kafka://a:9093,b,[::1]:9094/", _no_secrets)
    assert cluster.hosts == ("a:9093", "b:9092", "[::1]:9094")
    assert str(cluster) == "a:9093,b:9092,[::1]:9094"


def test_plain_by_default():
    options = parse("kafka://a", _no_secrets).client_options()
    assert options["security_protocol"] == "PLAINTEXT"
    assert options["ssl_context"] is None
    assert options["sasl_plain_password"] is None


def test_sasl_over_tls_takes_its_password_from_the_named_secret():
    cluster = parse(
        "kafka://a?security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512"
        "&sasl_username=mesh&sasl_password_secret=KAFKA",
        {"KAFKA": "s3cret"}.get,
    )
    options = cluster.client_options()
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("mesh", "s3cret")
    assert options["ssl_context"].check_hostname
    assert "s3cret" not in repr(cluster)


def test_tls_with_files_of_its_own(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=kafka", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    url = f"kafka://a?security_protocol=SSL&ssl_cafile={certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
    context = parse(url, _no_secrets).client_options()["ssl_context"]
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "kafka"),),)]


def test_requests_of_every_client_end_after_the_time_out():
    context = KafkaContext(parse("kafka://a", _no_secrets), KafkaTimeouts(request=2.5), SystemClock())
    assert context.client_options()["request_timeout_ms"] == 2500


def test_the_rest_of_the_parameters():
    cluster = parse("kafka://a?compression=gzip&replication_factor=3", _no_secrets)
    assert (cluster.compression, cluster.replication_factor) == ("gzip", 3)
    assert parse("kafka://a?compression=none", _no_secrets).compression is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("kafka://user:hunter2@a:9092", "sasl_password_secret"),
        ("kafka://hunter2@a", "sasl_password_secret"),
        ("kafka://a,u:hunter2@b", "sasl_password_secret"),
        ("kafka://", "no host"),
        ("kafka://a,,b", "no host"),
        ("kafka://a:port", "host:port"),
        ("kafka://a:99999", "host:port"),
        ("kafka://a/topic", "looks like"),
        ("http://a", "looks like"),
        ("kafka://a?acks=1", "'acks' is not a parameter"),
        ("kafka://a?compression=lz4&compression=gzip", "twice"),
        ("kafka://a?compression=rar", "compression"),
        ("kafka://a?security_protocol=TLS", "security_protocol"),
        ("kafka://a?security_protocol=SASL_SSL&sasl_mechanism=GSSAPI&sasl_username=u", "sasl_mechanism"),
        ("kafka://a?security_protocol=SASL_SSL&sasl_password_secret=X", "needs sasl_username"),
        ("kafka://a?security_protocol=SASL_SSL&sasl_username=u", "needs sasl_password_secret"),
        ("kafka://a?security_protocol=SASL_SSL&sasl_username=u&sasl_password_secret=X", "'X'"),
        ("kafka://a?sasl_username=u", "needs security_protocol"),
        ("kafka://a?ssl_cafile=/x", "needs security_protocol"),
        ("kafka://a?security_protocol=SSL&ssl_cafile=/not/there", "ssl_"),
        ("kafka://a?security_protocol=SSL&ssl_certfile=/x", "need each other"),
        ("kafka://a?replication_factor=0", "replication_factor"),
        ("kafka://a?replication_factor=many", "replication_factor"),
    ],
)
def test_what_is_wrong_is_refused_with_a_reason(url, says):
    with pytest.raises(InvalidInput, match=says) as refusal:
        parse(url, _no_secrets)
    assert "hunter2" not in str(refusal.value)
