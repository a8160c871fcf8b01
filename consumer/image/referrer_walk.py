"""Walks over what is attached to manifests, and copies it; what cannot be copied is left out."""

from collections.abc import AsyncIterator, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from consumer.image import copy_manifest, left_out, overwrite, plan, survey
from consumer.image.job import Job
from consumer.image.plan import Image, Plan
from mesh.concurrency import all_of
from mesh.errors import ContentRefused, HelperFailed, RegistryError, Unreachable
from mesh.registry import fallback_index
from mesh.registry.port import Manifest, Referrer
from mesh.registry.referrers import (
    cosign_tags,
    is_fallback,
    newest_first,
    read_index,
    read_subject,
)
from schemas.completions import Side
from schemas.names import Digest, Tag

_DEEPEST = 4
_CONCURRENT_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class _Found:
    """What the source has about one manifest."""

    subject: Digest
    referrers: Sequence[Digest]  # the newest first
    tags: Sequence[tuple[Tag, Digest]]

    @property
    def digests(self) -> list[Digest]:
        return [*(digest for _, digest in self.tags), *self.referrers]


class ReferrerWalk:
    """Walks from subjects to their referrers, level by level, so that each is copied before its referrers."""

    def __init__(self, job: Job, image: Digest, *, resend: bool) -> None:
        """The completion lists the referrers of `image`."""
        self._job, self._task, self._image, self._resend = job, job.task, image, resend
        self._source, self._destination = job.source, job.destination
        self._seen: set[Digest] = set()
        self._found = 0
        self._is_cut_short = False
        self.copied = 0  # referrers that the destination lacked or did not list

    async def about(self, subjects: Iterable[Digest]) -> None:
        """Copies all referrers of these subjects, and theirs."""
        level = [digest for digest in subjects if digest not in self._seen]
        self._seen.update(level)
        for depth in range(_DEEPEST + 1):
            following: dict[Digest, None] = {}
            async for found in self._listed(level):
                if self._is_cut_short:
                    return
                new = self._within_limits(depth, [it for it in found.digests if it not in self._seen])
                for tag, digest in found.tags:
                    if digest in new or digest in self._seen:
                        with self.leaving_out():
                            await self.copy_tag(tag, digest, found.subject)
                wanted = [it for it in found.referrers if it in new or it in self._seen]
                await self.attach(found.subject, wanted)
                self._seen.update(new)
                following |= new
            level = list(following)

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Leaves out what raises an error in the block; everything else too when a registry does not answer."""
        try:
            yield
        except RegistryError as error:
            left_out.leave_out(self._job, error)
            self._is_cut_short |= isinstance(error, Unreachable | HelperFailed)

    async def copy_pushed(self, digest: Digest, subject: Digest) -> Sequence[Digest]:
        """Copies what was pushed, as a tag or as a referrer, and returns its digests."""
        if (tag := self._own_tag()) is not None:
            await overwrite.check(self._job, digest)
            await self.copy_tag(tag, digest, subject)
            return [digest]
        pushed = await self._pushed(digest)
        await self.attach(subject, pushed)
        if (error := self._job.progress.left_out.error) is not None:
            raise error
        return pushed

    async def is_there(self, digest: Digest, subject: Digest) -> bool:
        """Returns whether the destination has what was pushed, and lists it."""
        if self._own_tag() is not None:
            return await survey.holds(self._job, digest)
        pushed, listed = await self._pushed(digest), await self._listed_at_destination(subject)
        return listed.issuperset(pushed) and all([await survey.has_content(self._job, one) for one in pushed])

    def _own_tag(self) -> Tag | None:
        """The tag, if it is one of cosign's, which are copied as tags."""
        tag = self._task.tag
        return None if tag is None or is_fallback(tag) else tag

    async def _pushed(self, digest: Digest) -> Sequence[Digest]:
        if self._task.tag is None:
            return [digest]
        index = await self._source.read_manifest(self._task.repository, digest)
        return [entry.descriptor.digest for entry in read_index(index.body, Side.SOURCE)]

    async def attach(self, subject: Digest, referrers: Sequence[Digest]) -> None:
        """Copies manifests that name `subject`, and lists them at the destination."""
        if not referrers:
            return
        unlisted: list[Manifest] = []
        with self.leaving_out():
            listed = await self._listed_at_destination(subject)
            self._report(subject, listed)
            for digest in referrers:
                if not self._is_cut_short:
                    with self.leaving_out():
                        await self._attach_one(subject, digest, listed, unlisted)
            if unlisted:
                await self._list_at_destination(subject, unlisted)

    async def _attach_one(
        self, subject: Digest, digest: Digest, listed: Container[Digest], unlisted: list[Manifest]
    ) -> None:
        """Copies one referrer; adds it to `unlisted` if the destination's registry does not list it by itself."""
        if digest in listed and await survey.has_content(self._job, digest):
            return
        image = await survey.read_image(self._job, digest)
        if image is None or read_subject(image.root) != subject:
            return  # wrongly listed, or deleted since
        if await self._put_referrer(image) is None:
            unlisted.append(image.root)
        self.copied += 1
        self._report(subject, [digest])

    async def copy_tag(self, tag: Tag, digest: Digest, subject: Digest) -> None:
        """Copies a tag of cosign's; another digest under it is overwritten if the rule overrides."""
        there = await self._destination.resolve(self._task.destination_repository, tag)
        if there is not None and there.digest == digest and not self._resend:
            self._report(subject, [digest])
            return
        if there is not None and there.digest != digest and not self._task.rule.override:
            return
        image = await survey.read_image(self._job, digest)
        if image is None:
            return  # deleted since
        await self._copy(plan.make_plan(image))
        await copy_manifest.write_tag(self._job.of(replace(self._task, tag=tag)), image)
        self.copied += 1
        self._report(subject, [digest])

    def _report(self, subject: Digest, referrers: Iterable[Digest]) -> None:
        if subject == self._image:
            self._job.progress.attach(referrers)

    async def _put_referrer(self, image: Image) -> Digest | None:
        """Returns the subject if the registry lists referrers itself, which it reports when it takes the manifest."""
        steps = plan.make_plan(image)
        await self._copy(Plan(steps.blobs, steps.manifests[:-1]))
        return await self._destination.write_manifest(
            self._task.destination_repository, image.digest, image.root
        )

    async def _copy(self, steps: Plan) -> None:
        self._job.progress.bytes_total += sum(blob.size for blob in steps.blobs)
        await self._job.before_write()
        await self._job.services.copier.copy(
            steps.blobs, self._job.run, self._source, self._destination, resend=self._resend
        )
        await copy_manifest.copy_manifests(self._job, steps, resend=self._resend)

    async def _listed_at_destination(self, subject: Digest) -> frozenset[Digest]:
        if self._resend:
            return frozenset()
        found = await self._destination.referrers(self._task.destination_repository, subject)
        return frozenset(referrer.descriptor.digest for referrer in found)

    async def _list_at_destination(self, subject: Digest, unlisted: Sequence[Manifest]) -> None:
        async with self._job.services.copier.locks.hold((self._task.destination.name, subject)):
            await fallback_index.add(
                self._destination,
                self._task.destination_repository,
                subject,
                unlisted,
                clock=self._job.clock,
            )

    async def _listed(self, subjects: Sequence[Digest]) -> AsyncIterator[_Found]:
        for at in range(0, len(subjects), _CONCURRENT_REQUESTS):
            for found in await all_of(map(self._find, subjects[at : at + _CONCURRENT_REQUESTS])):
                yield found

    async def _find(self, subject: Digest) -> _Found:
        found = await all_of(
            [self._by_list(subject), *(self._by_tag(subject, it) for it in cosign_tags(subject))]
        )
        return _Found(
            subject,
            [digest for one in found for digest in one.referrers],
            [tagged for one in found for tagged in one.tags],
        )

    async def _by_list(self, subject: Digest) -> _Found:
        listed: Sequence[Referrer] = ()
        with self.leaving_out():
            listed = newest_first(await self._source.referrers(self._task.repository, subject))
        return _Found(subject, [referrer.descriptor.digest for referrer in listed], ())

    async def _by_tag(self, subject: Digest, tag: Tag) -> _Found:
        found = None
        with self.leaving_out():
            found = await self._source.resolve(self._task.repository, tag)
        return _Found(subject, (), [(tag, found.digest)] if found is not None else ())

    def _within_limits(self, depth: int, new: Iterable[Digest]) -> dict[Digest, None]:
        """Returns the first ones, as many as may be copied; leaves out the others."""
        found, most = dict.fromkeys(new), self._job.services.limits.referrers
        room = 0 if depth == _DEEPEST else most - self._found
        taken = dict.fromkeys(islice(found, room))
        if rest := len(found) - len(taken):
            limit = f"{_DEEPEST} levels" if depth == _DEEPEST else f"{most} referrers of one image"
            error = ContentRefused(f"more than {limit} are not copied", side=Side.SOURCE)
            left_out.leave_out(self._job, error, rest)
        self._found += len(taken)
        return taken
