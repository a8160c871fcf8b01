"""The OCI Distribution client: implements the `Registry` port over HTTP, with one `RegistryEndpoint` for each place."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from random import SystemRandom

from yarl import URL

from mesh.clock import Clock, SystemClock
from mesh.credentials.credentials import CredentialProvider, RefreshingCredentials
from mesh.errors import (
    ContentRefused,
    Denied,
    EndpointNotFound,
    InvalidInput,
    NotFound,
    RegistryError,
    Rejected,
    ServerFault,
)
from mesh.registry import auth, listings, redirects, verify
from mesh.registry.download import BlobReader
from mesh.registry.egress import parse_networks
from mesh.registry.manifests import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX
from mesh.registry.port import MAX_MANIFEST, Chain, Descriptor, Manifest, Referrer, Upload
from mesh.registry.referrers import fallback_tag, read_index
from mesh.registry.sessions import read_whole
from mesh.registry.transport import Call, Channel, Transport
from mesh.registry.upload import begin, begin_unless_mounted, cancel, mount_blob, write_blob
from schemas.completions import Side
from schemas.names import Digest, Reference, Repository, Tag

# The last type lets registries answer with artifacts of unknown types.
_ACCEPT = ", ".join([*sorted(INDEX_TYPES | MANIFEST_TYPES), "*/*"])
_MAX_REFERRERS = 10_000  # of one manifest


def open_endpoint(
    name: str,
    url: str,
    credentials: CredentialProvider | None,
    *,
    clock: Clock | None = None,
    random: Callable[[], float] | None = None,
    allowed_networks: Iterable[str] = (),
    realms: Iterable[str] = (),
) -> "RegistryEndpoint":
    """Opens the place `name` at `url`. Call it on the running event loop, and close the endpoint there.

    Args:
        allowed_networks: CIDRs that the registry may redirect to, besides public addresses.
        realms: Origins of token servers, such as `https://auth.example.com`, besides the registry's own.

    Raises:
        InvalidInput: The URL, a network or a realm is invalid.
    """
    return RegistryEndpoint(
        Transport(
            name,
            _parse_base(name, url),
            credentials or RefreshingCredentials(lambda: None),
            clock=clock or SystemClock(),
            random=random or SystemRandom().random,
            networks=parse_networks(allowed_networks),
            realms=auth.parse_realms(realms),
        )
    )


class RegistryEndpoint:
    """The `Endpoint` port over HTTP."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def registry(self, side: Side, chain: Chain | None = None) -> "RegistryClient":
        return RegistryClient(Channel(self._transport, side, chain))

    async def ping(self) -> None:
        await self.registry(Side.SOURCE).ping()

    async def close(self) -> None:
        await self._transport.close()


class RegistryClient:
    """The `Registry` port over HTTP. It retries only expired tokens and broken downloads; the caller does the rest."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._side = channel.side

    async def ping(self) -> None:
        call = Call("GET", self._channel.url(""), ignores_pause=True)
        async with self._channel.request(call, (200,)):
            pass

    async def resolve(self, repository: Repository, reference: Reference) -> Descriptor | None:
        try:
            async with self._channel.request(
                self._manifest("HEAD", repository, reference), (200,)
            ) as response:
                size = response.content_length
                media_type = verify.plain_type(response.headers.get("Content-Type"))
                digest = verify.claimed_digest(response.headers.get("Docker-Content-Digest"), side=self._side)
            if size is None or media_type is None or digest is None:
                return (await self.read_manifest(repository, reference)).descriptor
        except NotFound:
            return None
        if isinstance(reference, Digest):
            verify.check_stored(digest, reference, side=self._side)
            return Descriptor(media_type, reference, size)
        return Descriptor(media_type, digest, size)

    async def read_manifest(self, repository: Repository, reference: Reference) -> Manifest:
        async with self._channel.request(self._manifest("GET", repository, reference), (200,)) as response:
            body = await read_whole(response, MAX_MANIFEST)
        if verify.plain_type(response.headers.get("Content-Type")) == "text/html":
            raise ServerFault(
                f"{self._channel.transport.name}: a web page was sent for manifest {reference}; "
                "a proxy in front of the registry answered",
                side=self._side, status=response.status,
            )  # fmt: skip
        if body is None:
            raise ContentRefused(f"manifest {reference} is over {MAX_MANIFEST} bytes", side=self._side)
        return verify.check_manifest(
            body,
            wanted=reference,
            content_type=response.headers.get("Content-Type"),
            claimed=response.headers.get("Docker-Content-Digest"),
            side=self._side,
        )

    async def write_manifest(
        self, repository: Repository, reference: Reference, manifest: Manifest
    ) -> Digest | None:
        call = Call(
            "PUT",
            self._channel.url(f"{repository}/manifests/{reference}"),
            auth.push(repository),
            headers={"Content-Type": manifest.media_type},
            body=manifest.body,
        )
        async with self._channel.request(call, (200, 201, 202)) as response:
            stored = verify.claimed_digest(response.headers.get("Docker-Content-Digest"), side=self._side)
            subject = verify.claimed_digest(response.headers.get("OCI-Subject"), side=self._side)
        verify.check_stored(stored, manifest.digest, side=self._side)
        return subject

    async def delete_manifest(self, repository: Repository, reference: Reference) -> None:
        url = self._channel.url(f"{repository}/manifests/{reference}")
        async with self._channel.request(Call("DELETE", url, auth.delete(repository)), (200, 202, 204)):
            pass

    async def referrers(
        self, repository: Repository, subject: Digest, *, has_no_tag: bool = False
    ) -> list[Referrer]:
        if has_no_tag and self._channel.transport.no_referrers_api.is_set():
            return []
        page: URL | None = self._channel.url(f"{repository}/referrers/{subject}")
        found: dict[Digest, Referrer] = {}
        for number in range(listings.MAX_PAGES):
            if page is None:
                return list(found.values())
            try:
                listed, page = await self._referrers_page(repository, page)
            except (NotFound, Rejected) as error:
                if number or error.status is None:
                    raise
                if isinstance(error, EndpointNotFound):
                    self._channel.transport.no_referrers_api.set()
                return [] if has_no_tag else await self._fallback_referrers(repository, subject)
            found |= {referrer.descriptor.digest: referrer for referrer in listed}
            if len(found) > _MAX_REFERRERS:
                break
        raise Rejected(f"{subject} has more than {_MAX_REFERRERS} referrers", side=self._side)

    async def blob_size(self, repository: Repository, digest: Digest) -> int | None:
        call = Call("HEAD", self._channel.url(f"{repository}/blobs/{digest}"), auth.pull(repository))
        try:
            async with self._channel.request(call, (200,)) as response:
                size = response.content_length
        except NotFound:
            return None
        if size is None:
            raise Rejected(f"the registry does not say the size of {digest}", side=self._side)
        return size

    @contextlib.asynccontextmanager
    async def read_blob(
        self, repository: Repository, blob: Descriptor, *, offset: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        reader = BlobReader(self._channel, repository, blob, offset)
        try:
            await reader.open()
            yield reader
        finally:
            reader.close()

    async def mount_blob(self, repository: Repository, digest: Digest, from_repository: Repository) -> bool:
        return await mount_blob(self._channel, repository, digest, from_repository)

    async def begin_upload(self, repository: Repository, digest: Digest) -> Upload | None:
        mounts = self._channel.transport.mounts
        if await self._can_mount():
            try:
                return await begin_unless_mounted(self._channel, repository, digest, repository)
            except (Denied, NotFound, Rejected):
                mounts.works.clear()
                mounts.fails.set()
        if await self.blob_size(repository, digest) is None:
            return await begin(self._channel, repository)
        mounts.known_blob = repository, digest
        return None

    async def _can_mount(self) -> bool:
        """Probes with an existing blob, as a registry that does not mount answers as if a blob were missing."""
        mounts = self._channel.transport.mounts
        if mounts.works.is_set() or mounts.fails.is_set() or mounts.known_blob is None:
            return mounts.works.is_set()
        mounts.fails.set()  # until the probe is answered, so that no other request probes
        with contextlib.suppress(RegistryError):
            if await self.mount_blob(*mounts.known_blob, from_repository=mounts.known_blob[0]):
                mounts.works.set()
        return mounts.works.is_set()

    async def cancel_upload(self, repository: Repository, upload: Upload) -> None:
        await cancel(self._channel, repository, upload)

    async def write_blob(
        self,
        repository: Repository,
        blob: Descriptor,
        chunks: AsyncIterator[bytes],
        upload: Upload | None = None,
    ) -> None:
        await write_blob(self._channel, repository, blob, chunks, upload)
        self._channel.transport.mounts.known_blob = repository, blob.digest

    def tags(self, repository: Repository) -> AsyncIterator[Tag]:
        path, scopes = f"{repository}/tags/list", auth.pull(repository)
        return listings.list_names(self._channel, path, "tags", scopes, Tag)

    def repositories(self) -> AsyncIterator[Repository]:
        return listings.list_names(self._channel, "_catalog", "repositories", auth.catalog(), Repository)

    async def _referrers_page(self, repository: Repository, page: URL) -> tuple[list[Referrer], URL | None]:
        """Returns a page and the URL of the next one. A registry without the API may answer with another type."""
        call = Call("GET", page, auth.pull(repository), headers={"Accept": OCI_INDEX})
        async with self._channel.request(call, (200,)) as response:
            body = await read_whole(response, listings.MAX_PAGE_BYTES)
        if verify.plain_type(response.headers.get("Content-Type")) != OCI_INDEX:
            raise Rejected("the answer is not a list of referrers", side=self._side, status=response.status)
        following = redirects.next_page(page, response.headers.getall("Link", []), side=self._side)
        return read_index(body or b"", self._side), following

    async def _fallback_referrers(self, repository: Repository, subject: Digest) -> list[Referrer]:
        try:
            index = await self.read_manifest(repository, fallback_tag(subject))
        except NotFound:
            return []
        return read_index(index.body, self._side) if index.media_type == OCI_INDEX else []

    def _manifest(self, method: str, repository: Repository, reference: Reference) -> Call:
        url = self._channel.url(f"{repository}/manifests/{reference}")
        return Call(method, url, auth.pull(repository), headers={"Accept": _ACCEPT})


def _parse_base(name: str, text: str) -> URL:
    """Returns the origin of a registry's URL. The error does not repeat the text, which may contain a password."""
    problem = InvalidInput(f"{name}: not a registry's URL: use http://HOST[:PORT] or https://HOST[:PORT]")
    try:
        url = URL(text)
        if url.scheme not in ("http", "https") or url.user is not None or url.path not in ("", "/"):
            raise problem
        return url.origin()
    except ValueError as error:
        raise problem from error
