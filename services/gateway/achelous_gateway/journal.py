"""Where each VPC's table stands and what changed lately in it, for the answers to RSP requests."""

import numpy as np

from achelous_gateway.changes import ChangeLogs
from achelous_gateway.rsp_server import Stands
from achelous_shared.names import VNI_MAX
from achelous_shared.rsp_hash import Hashes


class RspJournal:
    """Written by the keeper, read by the RSP server."""

    def __init__(self) -> None:
        self.stands: Stands = np.zeros(VNI_MAX + 2, np.int64)
        self.changes = ChangeLogs()

    def begin(self, vni: int, revision: int) -> None:
        """See Journal."""
        self.changes.begin(vni, revision)

    def append(
        self, vni: int, revision: int, hashes: Hashes, now_ns: int, *, gap: int | None = None
    ) -> None:
        """See Journal."""
        self.changes.append(vni, revision, hashes, now_ns, gap=gap)

    def stand_at(self, vni: int, revision: int) -> None:
        """See Journal."""
        self.stands[vni] = revision + 1

    def forget(self, vni: int) -> None:
        """See Journal."""
        self.changes.forget(vni)
        self.stands[vni] = 0
