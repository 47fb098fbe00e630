"""Graph walks: which nodes are two edges away? The planted edges stand apart, and the nodes they lead to lead on."""

from __future__ import annotations

from synth.needles import pools
from synth.needles.body import Draft
from synth.needles.setting import Setting

BRANCHES = 2
BEHIND = 2


def draft(setting: Setting) -> Draft:
    """Two edges leave the start, two leave each of their ends, and one more leaves each node that is an answer."""
    names: dict[str, None] = {}
    while len(names) < 1 + BRANCHES + 2 * BRANCHES * BEHIND:
        names[pools.node(setting.chance.below, setting.split, planted=True)] = None
    start, *others = names
    middle, last = others[:BRANCHES], others[BRANCHES:]
    reached, beyond = last[: BRANCHES * BEHIND], last[BRANCHES * BEHIND :]
    edges = [f"{start} -> {node}" for node in middle]
    edges += [f"{middle[i // BEHIND]} -> {node}" for i, node in enumerate(reached)]
    told = len(edges)
    edges += [f"{node} -> {end}" for node, end in zip(reached, beyond, strict=True)]
    found = setting.spread(edges, told=told)
    asking = setting.wording.walks
    units = pools.edges(setting.split, setting.tokens, setting.measure)
    return Draft(
        head=asking.head,
        tail=asking.tail.format(query=start),
        answer_prefix=asking.prefix,
        outputs=reached,
        lay=setting.run(units, found.needles, found.depths, told=found.told),
        others=[*beyond, *middle],
    )
