"""Replies: a resource with its ETag, a page of them, nothing."""

from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

from pydantic import BaseModel
from starlette.responses import Response

from achelous_controller.api import rendering
from achelous_controller.api.context import cursor_after
from achelous_controller.api.models.common import Page as PageView
from achelous_controller.api.rendering import BatchView, InstanceView, VnicView, json_of
from achelous_controller.domain.precondition import etag
from achelous_controller.store.objects import Page

_JSON: Final = "application/json"
_JSON_TYPE: Final = (b"content-type", _JSON.encode())


class _Rendered(Response):
    """JSON whose headers are written already, names in lower case."""

    def __init__(self, content: bytes, status: int, *headers: tuple[bytes, bytes]) -> None:
        self.status_code = status
        self.body = content
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(content)), _JSON_TYPE, *headers]


class Versioned(Protocol):
    """A view of an object that has an ETag."""

    @property
    def version(self) -> int: ...

    def model_dump_json(self) -> str: ...


class Identified(Protocol):
    """A view of an object that has an id."""

    @property
    def id(self) -> UUID: ...


def resource(view: Versioned, status: int = 200, location: str | None = None) -> Response:
    """One object."""
    headers = {"ETag": etag(view.version)}
    if location is not None:
        headers["Location"] = location
    return Response(view.model_dump_json(), status, headers, _JSON)


def body(view: BaseModel, status: int = 200) -> Response:
    """Something without an ETag."""
    return Response(view.model_dump_json(), status, None, _JSON)


def page(views: Sequence[Identified], wanted: Page) -> Response:
    """A page of objects."""
    following = cursor_after([view.id for view in views], wanted.limit)
    return body(PageView.model_construct(items=list(views), next=following))


def rendered(
    view: InstanceView | VnicView, status: int = 200, location: str | None = None
) -> Response:
    """Like `resource`, of an instance or a vNIC."""
    tag = b"etag", etag(view.version).encode()
    more = () if location is None else ((b"location", location.encode()),)
    return _Rendered(json_of(view), status, tag, *more)


def rendered_batch(view: BatchView) -> Response:
    """Instances that were made."""
    return _Rendered(json_of(view), 201)


def rendered_page(
    views: list[InstanceView] | list[VnicView], wanted: Page, last: UUID | None = None
) -> Response:
    """Like `page`, of instances or vNICs; ``last``: the place of the last one if not its id."""
    ids = [view.id for view in views]
    following = cursor_after(ids if last is None else [*ids[:-1], last], wanted.limit)
    return _Rendered(json_of(rendering.PageView(views, following)), 200)


def nothing() -> Response:
    """204."""
    return Response(status_code=204)
