"""Names in the place of ids."""

from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

from achelous_cli.failures import Document, ExitCode, failure, usage
from achelous_cli.output import plain
from achelous_cli.resources import Resource

if TYPE_CHECKING:
    from achelous_cli.session import Session

_SHOWN: Final = 20
"""Of the objects with one name."""


def find(session: "Session", resource: Resource, reference: str, within: Document) -> str:
    """The id of NAME or PARENT/NAME; what has the form of an id is taken for one."""
    if is_id(reference):
        return reference
    if resource.name is None:
        raise usage(f"{plain(reference)!r} is no id, and a {resource.title} has no name")
    parent, _, name = reference.rpartition("/")
    filters = {**within, resource.name: name}
    if parent and resource.parent is not None:
        noun, member = resource.parent
        filters[member] = session.resolve(noun, parent)
    elif parent:
        raise usage(f"{plain(reference)!r}: the name of a {resource.title} stands alone")
    listed = session.items(session.path(resource), filters, None)
    # tokens can not be filtered by name: their list is gone through
    found = list(islice((item for item in listed if item[resource.name] == name), _SHOWN))
    if not found:
        raise failure(
            ExitCode.NOT_FOUND,
            "Not found",
            f"there is no {resource.title} with the {resource.name} {plain(reference)}",
        )
    if len(found) > 1:
        raise _ambiguous(resource, reference, found)
    return str(found[0]["id"])


def is_id(reference: str) -> bool:
    """Whether it has the form of a UUID as the API writes them."""
    try:
        return str(UUID(reference)) == reference.lower()
    except ValueError:
        return False


def _ambiguous(resource: Resource, reference: str, found: list[Document]) -> Exception:
    ids = [str(item["id"]) for item in found]
    more = f" (and there may be more than these {_SHOWN})" if len(found) == _SHOWN else ""
    # the parent, if it is not given already, is another way to tell them apart
    narrower = resource.parent if "/" not in reference else None
    wide = f", or write {narrower[0].upper()}/{reference}" if narrower else ""
    return failure(
        ExitCode.USAGE,
        "Ambiguous name",
        f"{len(found)} {resource.title}s are called {plain(reference)}{more}: take an id of"
        f" {', '.join(ids)}{wide}",
        ids=ids,
    )
