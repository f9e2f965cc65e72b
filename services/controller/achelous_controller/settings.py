"""Settings of the controller."""

from pathlib import Path

from pydantic import Field

from achelous_shared.settings import ServiceSettings


class ControllerSettings(ServiceSettings):
    """Environment variables ``ACHELOUS_<NAME>``."""

    dsn: str = Field(repr=False)
    """postgresql+asyncpg://..., the database that holds the desired state."""
    operator_token_file: Path = Path("/run/achelous/operator.token")
    """Written with mode 0600 at the first start on an empty database."""
    building_timeout_s: float = 60.0
    """An instance that builds for longer becomes ERROR (and ACTIVE if it converges later)."""
    identity_rest_s: float = Field(default=7200.0, gt=0)
    """The number of a set of security groups, once given up, rests for so long before another set
    gets it: longer than the longest timeout of the hosts' sessions."""
    lead: bool = True
    """Whether it may lead; one that may not serves the API only, and leaves programming to others
    (which may run on other cores)."""
