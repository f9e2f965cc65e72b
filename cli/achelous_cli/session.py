"""What the commands of one call share: the API, opened when it is first needed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from achelous_cli.connection import connection
from achelous_cli.failures import Document
from achelous_cli.resources import RESOURCES, Resource

if TYPE_CHECKING:
    from achelous_cli.api import Api, Params


class Session:
    """``url`` and ``token_file``: the options of the call. ``closing`` is closed when it ends."""

    def __init__(self, url: str | None, token_file: Path | None, closing: ExitStack) -> None:
        self.url, self.token_file, self._closing = url, token_file, closing
        self._ids: dict[tuple[str, str, str], str] = {}
        self._vpcs: dict[str, str] = {}

    @cached_property
    def api(self) -> "Api":
        from achelous_cli.api import Api  # httpx takes longer to import than `--help` to answer

        return self._closing.enter_context(Api(connection(self.url, self.token_file, os.environ)))

    def items(self, path: str, params: "Params", limit: int | None) -> Iterator[Document]:
        """Objects of a list, ``limit`` of them at most; pages are asked for as they are wanted."""
        for page in self.api.pages(path, params, limit):
            yield from page.document["items"]

    def whole_list(self, path: str, params: "Params", limit: int | None) -> str:
        """The API's JSON; of several pages one, with the items of all and the end of the last."""
        pages = list(self.api.pages(path, params, limit))
        if len(pages) == 1:
            return pages[0].text
        items = [item for page in pages for item in page.document["items"]]
        return json.dumps({**pages[-1].document, "items": items}, separators=(",", ":"))

    def resolve(self, noun: str, reference: str, within: Document | None = None) -> str:
        """The id of the object that ``reference`` names; raises `Failure` unless it is just one.

        ``within``: filters of the list that the name is looked up in. Asked once for each name.
        """
        from achelous_cli.names import find

        key = (noun, reference, str(within))
        if key not in self._ids:
            self._ids[key] = find(self, RESOURCES[noun], reference, within or {})
        return self._ids[key]

    def vpc_of(self, subnet_id: str) -> str:
        """The id of a subnet's VPC. Asked once for each subnet."""
        if subnet_id not in self._vpcs:
            subnet = self.api.get(f"/v1/subnets/{subnet_id}").document
            self._vpcs[subnet_id] = subnet["vpc_id"]
        return self._vpcs[subnet_id]

    def path(self, resource: Resource, owner: str | None = None) -> str:
        """The path of a resource's collection; ``owner``: a reference, where there is one."""
        if resource.owner is None or owner is None:
            return f"/v1/{resource.path}"
        return f"/v1/{resource.path.format(owner=self.resolve(resource.owner, owner))}"

    def object_path(self, resource: Resource, values: Mapping[str, Any]) -> str:
        """The path of the object that a command's ``reference`` and ``owner`` name."""
        collection = self.path(resource, values.get("owner"))
        return f"{collection}/{self.resolve(resource.noun, values['reference'])}"


def session_of(context: typer.Context) -> Session:
    """The session of a command."""
    return cast(Session, context.obj)
