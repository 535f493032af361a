"""Which additions of a network are residual sums, by the graph of what depends on what.

A residual sum is ``z = P(h) + F(h)``. The state h is the immediate dominator of the sum: everything that meets in it
has come through h (Lengauer & Tarjan 1979 name the term; in a graph without cycles one pass finds it). Exactly one term
depends on h in the simplest way, the others through a matrix and not linearly.
"""

from __future__ import annotations

from ._found import Other, ResidualSum
from ._program import Program
from ._search import Search


def find_sums(program: Program) -> tuple[list[ResidualSum], list[Other]]:
    """The residual sums in the order in which they are computed, and what else adds or joins."""
    sums, others, before = dict[int, ResidualSum](), dict[int, Other](), set[int]()
    for number in program.inputs:
        search = Search(program, number)
        for place, found in search.all().items():
            if place in sums or place in others:
                continue
            if isinstance(found, ResidualSum):
                # a mask enters every layer: where other inputs meet it, only a stream that passes the sum is a state
                if found.z not in before or search.all_pass(found.h, found.z):
                    sums[place] = found
            else:
                others[place] = found
        before |= search.moving
    kept, nested = _disentangled(program, sums)
    others |= nested
    return kept, [others[place] for place in sorted(others) if place not in {s.place for s in kept}]


def _disentangled(program: Program, sums: dict[int, ResidualSum]) -> tuple[list[ResidualSum], dict[int, Other]]:
    """The sums without those inside of another, and without long skips around several of them."""
    bodies = {place: set(program.plan([s.h], [s.z])[0]) for place, s in sums.items()}
    kept, others = dict(sums), dict[int, Other]()
    for place in sorted(sums, key=lambda p: len(bodies[p])):
        if place not in kept:
            continue
        inside = [other for other in kept if other != place and other in bodies[place]]
        if len(inside) == 1:
            inner = kept.pop(inside[0])
            reason = "It lies inside the branch of another residual sum."
            others[inner.place] = Other(inner.place, "sum", reason, inner)
        elif inside:
            reason = f"It passes over {len(inside)} residual sums, which are the blocks."
            others[place] = Other(place, "long skip", reason, kept.pop(place))
    return [kept[place] for place in sorted(kept)], others
