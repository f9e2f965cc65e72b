"""The host's side of the underlay: what the packet path is told of it and of the settings."""

from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.devices import Underlay
from achelous_vswitch.sessions import timeouts_ns
from achelous_vswitch.settings import VswitchSettings


async def bind(dataplane: Dataplane, underlay: Underlay, settings: VswitchSettings) -> None:
    """Use this device as the underlay; raises OSError if it is gone again."""
    config = dataplane.config[0]
    config["underlay_mtu"] = underlay.mtu
    config["underlay_prefix_len"] = 96 + underlay.prefix_len
    config["learn_interval_ns"] = int(settings.learn_interval_s * 1e9)
    config["learn_per_window"] = settings.learn_per_window
    config["samples_per_window"] = settings.samples_per_window
    config["learn_packets"] = settings.learn_packets
    config["learn_bytes"] = settings.learn_bytes
    config["learn_after_ns"] = int(settings.learn_after_s * 1e9)
    config["learn_pause_ns"] = int(settings.learn_pause_s * 1e9)
    config["session_timeout_ns"] = timeouts_ns(settings)
    config["session_limit"] = settings.session_limit or max(1, settings.max_sessions // 8)
    config["session_ring"] = settings.max_sessions
    config["refuse_midstream"] = settings.refuse_midstream
    config["underlay_ifindex"] = underlay.ifindex
    config["vtep"] = int.from_bytes(underlay.vtep)
    await dataplane.hooks.attach_underlay(settings.underlay_device, underlay.ifindex)
