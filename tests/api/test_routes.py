"""Which handler a request comes to, the first time and again."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from collector.api.app import KnownRoutes
from tests.api.asgi import call


async def test_requests_come_to_the_same_handlers_again() -> None:
    async def told(request: Request) -> Response:
        return PlainTextResponse(f"{request.scope['route'].path} {request.method} {request.path_params}")

    paths = ["/a", "/a/{id}", "/a/b", "/{any:path}/x"]
    routes = [Route(path, told, methods=["GET"]) for path in paths] + [Route("/a", told, methods=["POST"])]
    plain, known = Router(routes), KnownRoutes(Router(routes))
    plain.redirect_slashes = False
    for _ in range(3):
        for path in ("/a", "/a/b", "/a/{id}", "/a/c", "/q/x"):
            for method in ("GET", "HEAD", "POST", "DELETE"):
                expected, found = [await call(one, path, method=method) for one in (plain, known)]
                assert found == expected
