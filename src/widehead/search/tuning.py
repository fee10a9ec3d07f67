"""How much of an index to look at: as little as finds what is wanted."""

from collections.abc import Callable, Iterable

from torch import Tensor

from widehead.search.exhaustive import ExhaustiveIndex
from widehead.search.protocol import Index, recall


def smallest(
    put: Callable[[int], None],
    efforts: Iterable[int],
    index: Index,
    rows: Tensor,
    queries: Tensor,
    k: int,
    target: float,
) -> float:
    """Put rising efforts until the index finds ``target`` of the best k of ``rows`` (n, d); the recall found."""
    check_part("target", target)
    k, found = min(k, rows.shape[0]), 0.0
    _, best = ExhaustiveIndex(rows).search(queries, k)
    for effort in efforts:
        put(effort)
        found = recall(index.search(queries, k)[1], best, rows.shape[0])
        if found >= target:
            break
    return found


def check_part(name: str, part: float) -> None:
    """ValueError naming a parameter that is not in (0, 1]."""
    if not 0.0 < part <= 1.0:
        raise ValueError(f"Parameter `{name}` should be in (0, 1]. Found {part}.")
