"""One input of the packet fuzzer: frames that enter one after the other, and how it is mutated."""

import random
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from fuzz.wire import repaired

MAX_STEPS: Final = 4
_TELLING: Final = (0, 1, 4, 5, 6, 17, 58, 44, 43, 60, 51, 63, 64, 127, 128, 133, 255)


class Entry(IntEnum):
    """Where a frame enters: the ports of `PacketWorld` by their slots, the underlay, a gateway."""

    ME = 1
    NEIGHBOUR = 2
    CLOSED = 3
    LEASED = 4
    UNDERLAY = 5
    GATEWAY = 6


@dataclass(frozen=True, slots=True)
class Step:
    """One frame. `gso_size`: of its segments, 0 for none."""

    entry: Entry
    frame: bytes
    gso_size: int = 0


def decode(data: bytes) -> list[Step]:
    """Each step is a byte (entry, its top bit for GSO), 16 bits of length, and the frame; what is
    too short, or names no entry, ends it."""
    steps: list[Step] = []
    while len(data) > 3 and len(steps) < MAX_STEPS and 0 < data[0] & 0x7F <= len(Entry):
        length = int.from_bytes(data[1:3], "big")
        frame, rest = data[3 : 3 + length], data[3 + length :]
        steps.append(Step(Entry(data[0] & 0x7F), frame, 500 if data[0] & 0x80 else 0))
        data = rest
    return steps


def encode(steps: list[Step]) -> bytes:
    """What `decode` reads."""
    return b"".join(
        bytes([step.entry | (0x80 if step.gso_size else 0)])
        + len(step.frame).to_bytes(2, "big")
        + step.frame
        for step in steps
    )


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input like this one: a frame changed a little, most times with lengths and checksums
    put right again, or the frames in another order. The same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    steps = decode(data) or [Step(Entry.ME, data)]
    at = chance.randrange(len(steps))
    if chance.random() < 0.15:
        steps = _rearranged(steps, at, chance)
    else:
        gso = 500 if chance.random() < 0.03 else steps[at].gso_size
        steps[at] = Step(steps[at].entry, _changed(steps[at].frame, chance), gso)
    return encode(steps)[:max_size]


def _changed(frame: bytes, chance: random.Random) -> bytes:
    made = bytearray(frame)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(7):
            case 0:
                made[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                made[at : at + 1] = bytes([chance.choice(_TELLING)])
            case 2:
                made[at : at + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in made[at:][:1])
            case 3:
                made[at:at] = bytes(chance.choice((1, 4, 8, 40)))
            case 4:
                del made[at : at + chance.choice((1, 2, 4, 8, 20))]
            case 5:  # where sums, lengths and counts have their edges
                run = len(made[at : at + chance.choice((2, 4, 8, 16, 2048))])
                made[at : at + run] = chance.choice((b"\0", b"\xff")) * run
            case 6:
                made += bytes(chance.choice((1, 6, 46, 600, 1500)))
    return repaired(bytes(made)) if chance.random() < 0.6 else bytes(made)


def _rearranged(steps: list[Step], at: int, chance: random.Random) -> list[Step]:
    """Another order, place or number of the frames."""
    step = steps[at]
    match chance.randrange(3):
        case 0:
            return [*steps, step][-MAX_STEPS:]
        case 1 if len(steps) > 1:
            return [*steps[:at], *steps[at + 1 :]]
        case _:
            moved = Step(chance.choice(list(Entry)), step.frame, step.gso_size)
            return [*steps[:at], moved, *steps[at + 1 :]]
