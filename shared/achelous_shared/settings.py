"""Settings that every service has, read from the environment.

A service derives its own class and adds fields; `ACHELOUS_NATS_URL` sets ``nats_url`` of them all.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What controller, gateway and vSwitch have in common."""

    model_config = SettingsConfigDict(env_prefix="ACHELOUS_", extra="ignore", frozen=True)

    nats_url: str = Field(repr=False)
    """nats://user:password@address:port, with the credentials of the service's role."""
    http: str = "127.0.0.1:0"
    """Where /healthz, /readyz and /metrics (and the controller's API) listen; port 0 picks one."""
    run_dir: Path = Path("/run/achelous")
    """Here the service writes <service>-<id>.http, the address that it listens on."""
    log_level: str = "INFO"


class DataplaneSettings(ServiceSettings):
    """What gateway and vSwitch add: where their packets are."""

    underlay_device: str = "underlay0"
    netns: Path | None = None
    """Namespace that holds the devices, such as /run/netns/NAME; none: the one it runs in."""
    bpffs: Path = Path("/sys/fs/bpf/achelous")
    """Folder on a bpf filesystem for pinned maps and links; one per agent."""
