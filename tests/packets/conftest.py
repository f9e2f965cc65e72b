"""The compiled objects, loaded once; every test finds their tables empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from packets.datapath import SMALL, Datapath
from packets.gateway_path import SMALL as GATEWAY_SMALL
from packets.gateway_path import GatewayPath
from packets.hosts import Programs

from achelous_shared.bpf import BpfObject


@pytest.fixture(scope="session")
def vswitch(objects: Path) -> Iterator[BpfObject]:
    with BpfObject.open(objects / "vswitch.bpf.o", pin_dir=None, max_entries=SMALL) as loaded:
        yield loaded


@pytest.fixture
def datapath(vswitch: BpfObject) -> Datapath:
    """The vSwitch of a host at OWN_VTEP, without any vNIC."""
    return Datapath(vswitch)


@pytest.fixture(scope="session")
def relay(objects: Path) -> Iterator[BpfObject]:
    path = objects / "gateway.bpf.o"
    with BpfObject.open(path, pin_dir=None, max_entries=GATEWAY_SMALL) as loaded:
        yield loaded


@pytest.fixture
def gateway(relay: BpfObject) -> GatewayPath:
    """A gateway at GATEWAY_VTEP, without any route."""
    return GatewayPath(relay)


@pytest.fixture(scope="session")
def programs(objects: Path) -> Iterator[Programs]:
    """For hosts in namespaces."""
    with Programs(objects) as programs:
        yield programs
