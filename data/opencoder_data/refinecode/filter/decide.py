"""From signals to keep or drop."""

from collections.abc import Mapping

import xxhash

from .thresholds import Rule, Thresholds


def decide(
    signals: Mapping[str, float | None], group: str | None, thresholds: Thresholds, content_hash: str | bytes | int
) -> tuple[bool, list[Rule]]:
    """(keep, fired rules) for a document: it is dropped when any rule of its group fires.

    A missing or null signal never fires. A rule with a probability draws its number from `content_hash` and the
    signal's name, so that equal content meets equal fate in every run, order and batch. `group` None (a type the recipe
    leaves out) drops without a rule. Raises ValueError for an unknown group.
    """
    if group is None:
        return False, []
    if group not in thresholds:
        raise ValueError(f"filter: unknown rule group {group!r}; known: {', '.join(thresholds)}")
    fired = []
    for name, rule in thresholds[group].items():
        if rule is None or (value := signals.get(name)) is None or not rule.hit(value):
            continue
        if rule.probability >= 1 or draw(content_hash, name) < rule.probability:
            fired.append(rule)
    return not fired, fired


def draw(content_hash: str | bytes | int, name: str) -> float:
    """A number in [0, 1) that is a pure function of the content's hash and the rule's signal."""
    return xxhash.xxh3_64_intdigest(f"{content_hash}\0{name}".encode()) / 2.0**64
