"""AdaQuantFL on digits: the note's two settings, with exactly 10 local steps of 32 examples a device and round.

a: mlp-64 (d = 4,810), 4 devices, 320 examples each, 150 rounds. b: mlp-256 (d = 19,210), 2 devices, 100 rounds.
Losses are those that the devices found before they trained, bytes those of the packets, headers included.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims.claim import Claim, Seed, at_least, at_most
from benchmarks.claims.readings import bytes_to_loss, final_loss, plateau, ratio, spent
from benchmarks.claims.trial import Trial

__all__ = ["CLAIMS", "TRIALS"]

_COMMON = ("task=digits", "split.rule=iid", "train.epochs=1", "train.batch=32", "train.rate=0.5", "uplink.scope=update")
_NETS = {
    "a": ("model=mlp-64", "rounds=150", "devices.goal=4", "split.examples=1280"),
    "b": ("model=mlp-256", "rounds=100", "devices.goal=2", "split.examples=640"),
}
_FALLING = ("train.final_rate=0.125", "rounds=120")
_GOALS = (0.1, 0.02)


def _fixed(levels: int) -> tuple[str, ...]:
    stages = f"uplink.stages=[{{ stage = 'levels', levels = {levels}, norm = 'l2' }}]"
    return (stages, "schedule.rule=fixed")


def _rising(start: int) -> tuple[str, ...]:
    return (*_fixed(start)[:1], "schedule.rule=ascending", f"schedule.start={start}")


_WAYS = {
    "float": ("uplink.stages=[]", "schedule.rule=fixed"),
    **{name: _fixed(levels) for name, levels in {"8bit": 255, "4bit": 15, "s3": 3, "s1": 1}.items()},
    **{f"rise{start}": _rising(start) for start in (2, 8, 16)},
}

TRIALS = (
    *(
        Trial(f"aq-{net}-{name}", "adaquantfl", (*_COMMON, *own, *way))
        for net, own in _NETS.items()
        for name, way in _WAYS.items()
    ),
    Trial("aq-a-falling", "adaquantfl", (*_COMMON, *_NETS["a"], *_FALLING, *_rising(2))),
    Trial("aq-a-aware", "adaquantfl", (*_COMMON, *_NETS["a"], *_FALLING, *_rising(2), "schedule.rate_aware=true")),
    Trial("aq-8-devices", "adaquantfl", (*_COMMON, *_NETS["a"], "devices.goal=8", "train.batch=16", *_rising(2))),
)


def _saving(net: str, other: str) -> Callable[[Seed], float | None]:
    """Returns: uplink of the rising schedule over that of another way, the larger of the two goals."""

    def value(seed: Seed) -> float | None:
        rising, whole = seed[f"aq-{net}-rise2"], seed[f"aq-{net}-{other}"]
        shares = [ratio(bytes_to_loss(rising, goal), bytes_to_loss(whole, goal)) for goal in _GOALS]
        known = [share for share in shares if share is not None]
        return max(known) if len(known) == len(shares) else None

    return value


def _starts(seed: Seed) -> float | None:
    """Returns the least ratio of uplink to loss 0.1 between a start and the next larger one."""
    costs = [bytes_to_loss(seed[f"aq-b-rise{start}"], _GOALS[0]) for start in (2, 8, 16)]
    steps = [ratio(costs[at + 1], costs[at]) for at in range(2)]
    known = [step for step in steps if step is not None]
    return min(known) if len(known) == len(steps) else None


def _accuracy_gap(net: str) -> Callable[[Seed], float]:
    return lambda seed: abs(plateau(seed[f"aq-{net}-rise2"]) - plateau(seed[f"aq-{net}-float"]))


def _growth(seed: Seed) -> float:
    """Returns how uplink a level-bit grows with the devices: 1 is linear, whatever levels the two runs chose."""
    from math import log2

    def a_device(name: str, devices: int) -> float:
        figures = seed[name]
        bits = sum(log2(2 * levels + 1) for levels in figures["levels_by_round"])
        return spent(figures)[-1] / devices / bits

    return a_device("aq-8-devices", 8) / a_device("aq-a-rise2", 4)


_NOTE = "adaquantfl, claim"
_AGAINST = (("8bit", "8 bits", 0.55, 4), ("float", "float", 0.2, 4), ("4bit", "4 bits", 1.1, 0))
CLAIMS = (
    Claim("aq-levels-grow", f"{_NOTE} 6", 0, "levels of the last round, from 2 on, setting a",
          ("aq-a-rise2",), lambda seed: seed["aq-a-rise2"]["levels_by_round"][-1], at_least(30), "levels"),
    *(Claim(f"aq-{net}-against-{other}", f"{_NOTE} 7 in part", row, f"uplink to the loss over that of {text},"
            f" setting {net}, the worse of loss 0.1 and 0.02",
            (f"aq-{net}-rise2", f"aq-{net}-{other}"), _saving(net, other), at_most(bound), "times")
      for net in _NETS for other, text, bound, row in _AGAINST),
    *(Claim(f"aq-{net}-accuracy", f"{_NOTE} 8", 4, f"final accuracy against float, either way, setting {net}",
            (f"aq-{net}-rise2", f"aq-{net}-float"), _accuracy_gap(net), at_most(1)) for net in _NETS),
    Claim("aq-floor", f"{_NOTE} 9", 0, "final loss of one fixed level over that of the rising schedule, setting b",
          ("aq-b-s1", "aq-b-rise2"),
          lambda seed: ratio(final_loss(seed["aq-b-s1"]), final_loss(seed["aq-b-rise2"])), at_least(10), "times"),
    Claim("aq-aware-bytes", f"{_NOTE} 10", 0, "falling rate: uplink of the rate-aware rule over the plain rule's",
          ("aq-a-aware", "aq-a-falling"),
          lambda seed: ratio(spent(seed["aq-a-aware"])[-1], spent(seed["aq-a-falling"])[-1]), at_most(0.95), "times"),
    Claim("aq-aware-loss", f"{_NOTE} 10", 0, "falling rate: final loss of the rate-aware rule over the plain rule's",
          ("aq-a-aware", "aq-a-falling"),
          lambda seed: ratio(final_loss(seed["aq-a-aware"]), final_loss(seed["aq-a-falling"])), at_most(1.1), "times"),
    Claim("aq-linear", f"{_NOTE} 11", 0, "uplink a device and bit of a level, 8 devices over 4",
          ("aq-8-devices", "aq-a-rise2"), _growth, at_most(1.1), "times"),
    Claim("aq-starts", f"{_NOTE} 12", 0, "uplink to loss 0.1, each start over the one below (2, 8, 16), setting b",
          tuple(f"aq-b-rise{start}" for start in (2, 8, 16)), _starts, at_least(1), "times"),
)  # fmt: skip
