"""Puts the HTTP API together: the resources, and what applies to every request."""

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from mesh.control.http.access import ApiAccess, only_json
from mesh.control.http.answers import answer_errors, answer_unknown_paths


class Resource(Protocol):
    """The handlers of one subject."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Adds the resource's routes."""
        ...


def mount(app: web.Application, resources: Sequence[Resource], access: ApiAccess) -> None:
    """Adds the API to an application under `/api/v1`, for those whom `access` allows.

    Paths without a route are answered as JSON too. The first resource with a route for a path answers it.
    """
    api = web.Application(middlewares=[answer_errors, access.check, only_json])
    for resource in resources:
        resource.add_routes(api.router)
    app.middlewares.append(answer_unknown_paths)
    app.add_subapp("/api/v1", api)
