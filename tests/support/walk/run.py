"""Walk after walk, each from its own seed, until there were enough actions."""

from __future__ import annotations

import time
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field

from support.walk.rare import RARE
from support.walk.walker import Actions, Walker
from widehead.cached import cached_everywhere
from widehead.errors import WideheadWarning

LENGTH = 300  # actions of a walk


@dataclass
class Found:
    """What came of some walks: counts and bounds in ``actions``, failures in words."""

    actions: Actions = field(default_factory=Actions)
    walks: int = 0
    failures: list[str] = field(default_factory=list)


def walk(seed: int, actions: int, *, first: int = 0, progress: bool = False, cached: bool = False) -> Found:
    """Walks from number ``first`` on, until there were so many actions; ``cached``: of the record for a GPU."""
    found, begin = Found(), time.monotonic()
    while sum(found.actions.counts.values()) < actions:
        number = first + found.walks
        with cached_everywhere() if cached else nullcontext():
            failure = one_walk(seed, number, found.actions)
        found.walks += 1
        if failure:
            found.failures.append(failure)
            print(failure, flush=True)
        if progress and found.walks % 10 == 0:
            count, seconds = sum(found.actions.counts.values()), time.monotonic() - begin
            print(f"{found.walks} walks, {count} actions, {len(found.failures)} failures, {seconds:.0f} s", flush=True)
    return found


def one_walk(seed: int, number: int, actions: Actions) -> str | None:
    """One walk; what failed, if anything did, in words."""
    actions.last.clear()
    walker = Walker(f"{seed} {number}", actions)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WideheadWarning)
            for _ in range(LENGTH):
                act(walker)
            walker.compare()
            walker.audit()
    except Exception as error:  # noqa: BLE001  whatever it is, it is reported with what led there
        where = "" if isinstance(error, AssertionError) else "".join(traceback.format_exception(error, limit=-4))
        last = "\n".join(f"    {line}" for line in actions.last)
        return f"seed {seed} walk {number}: {type(error).__name__}: {error}\n{where}{last}"
    finally:
        walker.close()
    return None


def act(walker: Walker) -> None:
    """One action, and W compared."""
    place = walker.source.random.uniform(0.0, 1000.0)
    for action, share in RARE.items():
        place -= share
        if place < 0.0:
            action(walker)
            break
    else:
        walker.step()
    walker.compare()


def report(found: Found) -> str:
    """Counts, and the worst share of each bound that was used up."""
    counts, lines = found.actions.counts, []
    for (dtype, what), share in sorted(found.actions.worst.items()):
        lines.append(f"  {dtype} {what}: {share:.2g} of its bound")
    lines.append(", ".join(f"{count} × {name}" for name, count in counts.most_common()))
    lines.append(f"{found.walks} walks, {sum(counts.values())} actions, {len(found.failures)} failures")
    return "\n".join(lines)
