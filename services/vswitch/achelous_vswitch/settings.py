"""Settings of the vSwitch agent, read from the environment (`ACHELOUS_HOST_ID` and so on)."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from achelous_shared.settings import DataplaneSettings


class VswitchSettings(DataplaneSettings):
    """Whose host this is, how much it holds, and how often it looks. Times in seconds."""

    host_id: UUID

    max_ports: int = 1024
    """vNICs at once. This and the next three size maps: pins of another size are not adopted."""
    max_fc: int = 65_536
    """Destinations on other hosts known at once."""
    max_fc_per_vnic: int = 16_384
    """Of these learned for one vNIC: its further destinations stay with the gateways."""
    max_sessions: int = 262_144
    max_rule_words: int = 2_097_152
    """Of 8 bytes, for the rules of all vNICs: about 100 for ten rules, 20,000 for 500; vNICs
    with the same rules share them."""

    reconcile: Literal["delta", "per_entry"] = "delta"
    """How entries are kept true: by asking what changed in their VPCs, or each one again."""
    fc_scan_s: float = 0.05
    """So often, either way."""
    fc_lifetime_s: float = 0.1
    """per_entry: what no gateway confirmed for so long is asked about (paper, section 4.3)."""
    fc_idle_s: float = 30.0
    """An entry that no packet used for so long is dropped."""
    rsp_timeout_s: float = 0.3
    """Then the next live gateway is asked."""
    negative_s: float = 1.0
    """So long a destination without a route is not asked for again."""
    learn_packets: int = Field(default=2, ge=1, lt=2**32)
    """A destination is worth a route after so many relayed packets: see docs/rsp.md."""
    learn_bytes: int = Field(default=8192, ge=0, lt=2**32)
    """Or after so many bytes, its first segment of a bulk transfer; 0: packets alone decide."""
    learn_after_s: float = Field(default=0.0, ge=0)
    """And no sooner than this after the first of them."""
    learn_pause_s: float = Field(default=10.0, gt=0)
    """After a pause so long, what was relayed before counts no more."""
    learn_interval_s: float = 0.1
    """At most one learn event per destination in this time."""
    learn_per_window: int = 64
    """At most so many learn events per vNIC, CPU and 100 ms."""
    samples_per_window: int = 16
    """At most so many dropped packets are sampled per vNIC, CPU and 100 ms; all are counted."""
    samples_kept: int = 4096
    """The last samples that can be asked for."""

    router_advert_s: float = Field(default=600.0, ge=1.0, le=1800.0)
    """Guests with IPv6 are told of their router so often, or up to three times as often."""
    probe_s: float = 0.1
    report_s: float = 1.0

    tcp_opening_s: float = 30.0
    """Idle time after which a session is over: SYN sent; the others by their states."""
    tcp_answered_s: float = 30.0
    """SYN answered, and the answer not yet acknowledged."""
    tcp_established_s: float = 3600.0
    tcp_closing_s: float = 120.0
    """One side has sent FIN: the other may go on sending."""
    tcp_closed_s: float = 10.0
    """Both have, or one has sent RST."""
    udp_opening_s: float = 30.0
    """Not answered."""
    udp_s: float = 60.0
    icmp_s: float = 30.0
    other_s: float = 60.0
    refuse_midstream: bool = False
    """Only a SYN opens a TCP session; else any packet that the rules allow does."""
    session_limit: int = 0
    """Sessions that a vNIC may open, and as many that others may open to it; 0: an eighth of
    max_sessions, so that it takes several vNICs that flood at once to fill the table."""
    session_scan_s: float = 0.1
    session_slice: int = 8192
    """Sessions looked at in one scan: all of them are seen every max_sessions / slice scans."""
