"""Who asks."""

from dataclasses import dataclass
from uuid import UUID

from achelous_controller.domain.errors import Forbidden, Invalid, NotFound


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a token: of one project, or (``project_id`` None) an operator."""

    token_id: UUID
    project_id: UUID | None

    @property
    def operator(self) -> bool:
        return self.project_id is None

    def must_be_operator(self) -> None:
        if not self.operator:
            raise Forbidden("this needs an operator's token; the one given is a project's")

    def project(self, named: UUID | None) -> UUID:
        """The project that a new object belongs to, when the request named ``named`` or none."""
        if self.project_id is None:
            if named is None:
                raise Invalid.field("project_id", None, "an operator has to name the project")
            return named
        if named is not None and named != self.project_id:
            raise NotFound("project", named)
        return self.project_id
