"""A registry's own list of repositories, page by page, and what it says where it keeps that to itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from mesh.errors import Denied, NotFound, RegistryError, Rejected
from mesh.registry.client import RegistryClient, open_endpoint
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests import images
from tests.contract import registries
from tests.contract.registries import Stub


@pytest.fixture(params=["builtin", pytest.param("distribution", marks=pytest.mark.real("docker-registry"))])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with getattr(registries, request.param)(tmp_path) as url:
        endpoint = open_endpoint("place", url, None)
        yield endpoint.registry(Side.SOURCE)
        await endpoint.close()


async def test_all_repositories_are_listed(registry: RegistryClient) -> None:
    assert [name async for name in registry.repositories()] == []
    names = [Repository(f"team-{number}/app") for number in range(5)]
    for name in names:
        await images.push(registry, name, Tag("v1"), images.image(layers=[b"layer"]))
    assert [name async for name in registry.repositories()] == names


async def _listed(stub: Stub) -> list[Repository]:
    endpoint = open_endpoint("place", stub.url, None)
    try:
        return [name async for name in endpoint.registry(Side.SOURCE).repositories()]
    finally:
        await endpoint.close()


async def test_the_next_page_is_followed_to_the_end() -> None:
    async with registries.stub() as stub:

        async def answer(request: web.Request) -> web.Response:
            if "last" in request.query:
                return web.json_response({"repositories": ["c"]})
            link = {"Link": '</v2/_catalog?n=2&last=b>; rel="next"'}
            return web.json_response({"repositories": ["a", "b"]}, headers=link)

        stub.answer = answer
        assert await _listed(stub) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b"", Denied),
        (403, b"", Denied),
        (404, b"", NotFound),
        (405, b"", Rejected),
        (200, b"<html>", Rejected),
        (200, b'{"repositories": ["../etc"]}', Rejected),
    ],
)
async def test_a_refusal_and_nonsense_are_errors_and_no_empty_list(
    status: int, body: bytes, error: type[RegistryError]
) -> None:
    async with registries.stub() as stub:
        stub.says(status, body)
        with pytest.raises(error):
            await _listed(stub)
