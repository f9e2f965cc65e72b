"""A connection to the bus that counts what RSP costs."""

from nats.aio.client import Client

from achelous_shared import subjects
from achelous_shared.bus import Bus

_RSP = f"{subjects.PREFIX}.rsp."


class MeteredBus(Bus):
    """Counts payload bytes of RSP requests and their replies."""

    def __init__(self, client: Client, url: str, name: str) -> None:
        super().__init__(client, url, name)
        self.rsp_messages = 0
        self.rsp_bytes = 0

    async def request(self, subject: str, data: bytes, *, timeout: float) -> bytes:
        """As `Bus.request`."""
        if not subject.startswith(_RSP):
            return await super().request(subject, data, timeout=timeout)
        self.rsp_messages += 1
        self.rsp_bytes += len(data)
        reply = await super().request(subject, data, timeout=timeout)
        self.rsp_messages += 1
        self.rsp_bytes += len(reply)
        return reply
