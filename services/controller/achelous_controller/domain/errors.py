"""Why a request is refused; the API turns each kind into its status and problem document."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request, as a path such as ``vnics[0].ip``, and what would be right."""

    field: str
    value: object
    message: str


class Refused(Exception):
    """A request that changes nothing. Subclasses say what kind of refusal it is."""

    title: ClassVar[str]

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)


class Invalid(Refused):
    """Input that is wrong whatever the state is."""

    title = "Invalid input"

    @classmethod
    def field(cls, field: str, value: object, message: str) -> "Invalid":
        """Input with one wrong field."""
        return cls(f"{field}: {message}", [FieldError(field, value, message)])


class Conflict(Refused):
    """Input that does not agree with what exists already."""

    title = "Conflict"

    @classmethod
    def field(cls, field: str, value: object, message: str) -> "Conflict":
        """A conflict about one field."""
        return cls(f"{field}: {message}", [FieldError(field, value, message)])


@dataclass(frozen=True, slots=True)
class User:
    """An object that uses another."""

    kind: str
    id: str
    name: str


class InUse(Conflict):
    """What shall be deleted is used. ``users``: the first few, ``total``: how many there are."""

    title = "In use"

    def __init__(self, what: str, users: Sequence[User], total: int) -> None:
        names = ", ".join(f"{user.kind} {user.name} ({user.id})" for user in users[:3])
        more = f" and {total - 3} more" if total > 3 else ""
        super().__init__(f"{what} is used by {names}{more}: delete them first")
        self.users = tuple(users)
        self.total = total


class QuotaExceeded(Conflict):
    """A project would have more of a resource than its quota."""

    title = "Quota exceeded"

    def __init__(self, resource: str, quota: int, used: int, requested: int) -> None:
        super().__init__(
            f"the project's quota of {resource} is {quota}: {used} are used and {requested} more"
            " were asked for"
        )
        self.resource, self.quota, self.used, self.requested = resource, quota, used, requested


class NotFound(Refused):
    """No such object, or none that the caller may see."""

    title = "Not found"

    def __init__(self, what: str, object_id: object) -> None:
        super().__init__(f"there is no {what} {object_id}")


class Unauthenticated(Refused):
    """No token, or one that is not known."""

    title = "Unauthenticated"


class Forbidden(Refused):
    """Something for operators only."""

    title = "Forbidden"


class PreconditionFailed(Refused):
    """The object is not at the version that the caller has seen."""

    title = "Precondition failed"


class Unavailable(Refused):
    """Not now; the same request may well be granted later."""

    title = "Unavailable"


class NoAnswer(Refused):
    """A service that was asked on the caller's behalf did not answer in time."""

    title = "No answer"
