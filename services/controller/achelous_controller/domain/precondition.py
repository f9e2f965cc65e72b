"""If-Match: change an object only as the caller has seen it (RFC 9110, section 13.1.1)."""

from dataclasses import dataclass

from achelous_controller.domain.errors import PreconditionFailed


def etag(version: int) -> str:
    """The entity tag of an object's version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    """The tags that the caller accepts; None accepts whatever is there."""

    tags: tuple[str, ...] | None

    @classmethod
    def parse(cls, if_match: str | None) -> "Precondition":
        """Of an If-Match header. A weak tag never matches, as the comparison is strong."""
        if if_match is None or if_match.strip() == "*":
            return cls(None)
        return cls(tuple(tag.strip() for tag in if_match.split(",")))

    def check(self, version: int) -> None:
        if self.tags is not None and etag(version) not in self.tags:
            raise PreconditionFailed(
                f"the object is at {etag(version)}, If-Match asks for {', '.join(self.tags)}:"
                " read it again"
            )


ANYTHING = Precondition(None)
