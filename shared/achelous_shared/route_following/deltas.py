"""Route messages of the bus, checked."""

from achelous_shared import messages
from achelous_shared.messages import BadMessage, RouteDelta
from achelous_shared.names import VNI_MAX, VNI_MIN
from achelous_shared.route_following.plan import Delta
from achelous_shared.routes import unpack


def read_delta(data: bytes) -> Delta:
    """The delta in a message; raises `BadMessage` or `MalformedTable`."""
    message = messages.decode(data, RouteDelta)
    if not VNI_MIN <= message.vni <= VNI_MAX:
        raise BadMessage(f"VNI {message.vni} is not in {VNI_MIN}..{VNI_MAX}")
    if not 0 <= message.base <= message.revision < 2**63:
        raise BadMessage(f"a delta from revision {message.base} to {message.revision}")
    return Delta(message.vni, message.base, message.revision, unpack(message.entries))
