"""The built-in registry's disk: no partial files, and nothing outside its folder."""

from pathlib import Path

import pytest

from mesh.registry.builtin.store import Store
from mesh.registry.port import digest_of
from schemas.names import MediaType, Repository, Tag

APP = Repository("team/app")
TYPE = MediaType("application/vnd.oci.image.manifest.v1+json")


@pytest.fixture(params=[False, True], ids=["fast", "fsync"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    store = Store(tmp_path / "registry", fsync=request.param)
    store.open()
    return store


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("initial", ["sha256", "sha512"])
@pytest.mark.parametrize("final", ["sha256", "sha512"])
def test_content_is_stored_under_its_digest(store: Store, initial: str, final: str):
    staged = store.stage(initial)
    staged.write(b"some ")
    staged.write(b"bytes")
    digest = digest_of(b"some bytes", final)
    assert store.commit(staged, digest)
    assert store.content_path(digest).read_bytes() == b"some bytes"


def test_bytes_of_another_digest_are_discarded(store: Store, tmp_path: Path):
    staged = store.stage()
    staged.write(b"some bytes")
    assert not store.commit(staged, digest_of(b"others"))
    assert files(tmp_path) == []


def test_incomplete_files_of_a_crash_are_deleted_at_the_next_start(store: Store, tmp_path: Path):
    staged = store.stage()
    staged.write(b"half")
    staged.close(fsync=False)
    assert len(files(tmp_path)) == 1
    Store(tmp_path / "registry").open()
    assert files(tmp_path) == []


def test_content_without_a_link_is_in_no_repository(store: Store):
    staged = store.stage()
    digest = digest_of(b"")
    store.commit(staged, digest)
    assert store.blob_size(APP, digest) is None
    store.link_blob(APP, digest)
    assert store.blob_size(APP, digest) == 0
    assert store.blob_size(Repository("team"), digest) is None


def test_a_repository_may_be_inside_another(store: Store):
    digest = digest_of(b"{}")
    for name in ("a", "a/b", "a/b/c"):
        store.put_manifest(Repository(name), TYPE, digest, b"{}")
        store.put_tag(Repository(name), Tag("1"), digest)
    assert store.repositories() == ["a", "a/b", "a/b/c"]
    assert store.tags(Repository("a/b")) == ["1"]


def test_a_tag_without_its_manifest_names_nothing(store: Store):
    store.put_tag(APP, Tag("1"), digest_of(b"{}"))
    assert store.manifest(APP, Tag("1")) is None


def test_the_longest_names_are_supported(store: Store):
    longest = Repository("a" * 255)
    digest = digest_of(b"{}", "sha512")
    store.put_manifest(longest, TYPE, digest, b"{}")
    store.put_tag(longest, Tag("t" * 128), digest)
    store.put_referrer(longest, digest, {"digest": digest})
    found = store.manifest(longest, Tag("t" * 128))
    assert found is not None
    assert (found.media_type, found.digest, found.path.read_bytes()) == (TYPE, digest, b"{}")
    assert store.referrers(longest, digest) == [{"digest": digest}]


def test_deleting_missing_content_returns_false(store: Store):
    digest = digest_of(b"")
    assert not store.unlink_blob(APP, digest)
    assert not store.delete_tag(APP, Tag("1"))
    assert not store.delete_manifest(APP, digest)
