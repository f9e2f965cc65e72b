"""A situation and its steps, played to both sides."""

from collections import Counter
from typing import Final

from packets.differential import steps
from packets.differential.both import Both
from packets.differential.comparing import Comparison, Stalled, kinds
from packets.differential.situations import Situation
from packets.differential.traffic import Traffic

from achelous_shared.bpf import BpfObject

TRIES: Final = 20


def play(loaded: BpfObject, situation: Situation, what: list[steps.Step]) -> Counter[str]:
    """How many cases there were ("cases": frames that were compared), and of which kinds.

    Raises AssertionError at the first difference, Stalled if the machine has no second for it."""
    for _ in range(TRIES):
        try:
            return _play_once(loaded, situation, what)
        except Stalled:
            continue
    raise Stalled


def _play_once(loaded: BpfObject, situation: Situation, what: list[steps.Step]) -> Counter[str]:
    both = Both.of(loaded, situation)
    traffic = Traffic(situation.talks)
    for route in situation.routes:
        traffic.identities[route.person.name] = route.identity
    comparison = Comparison(both)
    met: Counter[str] = Counter()
    for number, step in enumerate(what):
        try:
            met += _take(both, traffic, comparison, step)
        except AssertionError as error:
            error.add_note(f"{situation}\n" + "\n".join(map(str, what[: number + 1])))
            raise
    comparison.compare_rest()
    return met


def _take(both: Both, traffic: Traffic, comparison: Comparison, step: steps.Step) -> Counter[str]:
    met: Counter[str] = Counter()
    if not isinstance(step, steps.Packets):
        change(both, traffic, step)
        return met
    for sent in traffic.frames(step):
        met += kinds(comparison.send(sent), both)
        met.update(("cases", type(step).__name__))
    return met


def change(both: Both, traffic: Traffic, step: steps.Changes) -> None:
    """What is no packet."""
    match step:
        case steps.Wait(tens):
            both.wait(10.0 * tens)
        case steps.Rules(person, inward, rules):
            both.rules(person, rules, inward=inward)
        case steps.Identity(person, identity):
            if person.slot:
                both.identity(person, identity)
            else:
                traffic.identities[person.name] = identity
        case steps.Learn(route):
            both.learn(route)
        case steps.Forget(person):
            both.forget(person)
        case steps.Move(person, here):
            both.move(person, here=here)
