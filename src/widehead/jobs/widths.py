"""How wide a recommender's network usually is, by the numbers of its pairs, users and items, by memory and by time.

What is best depends on more than these: `trial.py` tries narrower ones.
"""

import math
import sys

import numpy as np

from widehead.training.memory import told

LEAST_USERS = 5
"""Rarer items are left out of the singular vectors: what their few users share with nobody else would take directions
of its own. On Epinions, where two items in three have one user, recall@20 is 0.061 with this and 0.025 without, at
width 128."""

# More units than the data can fill are of a few users each. 256 and 384 are best for Epinions' 310,000 pairs of such
# items, and from 1,024 on nothing is gained for gowalla's 809,000.
_PAIRS_A_UNIT, _WIDTHS = 800, (64, 1024)
_ITEMS_A_UNIT = 8  # fewer if the items are few, of which an eighth spans nearly all; or as `affordable_width` says
# Bytes that a run may take, at least and for each pair; those that a pair takes, and the name of a user or an item.
_MEMORY, _MEMORY_A_PAIR, _PAIR, _NAME = 5_400_000_000, 200, 65, 250
# Products of users and width², at least and for each pair: 10⁹ take some 6 seconds of a core.
_PRODUCTS, _PRODUCTS_A_PAIR = 50_000_000_000, 5_000


def usual_width(users: int, counts: np.ndarray) -> tuple[int, str]:
    """One unit for each 800 pairs of items that have 5 users or more, 64 to 1,024 in 32s; and what bounds it, or "".

    It is an eighth of the items at most, and less if memory or time would run out: see `affordable_width`.

    Args:
        counts: (D,) in how many pairs each item is.
    """
    lasting = counts >= LEAST_USERS
    units = round(counts[lasting].sum() / _PAIRS_A_UNIT / 32) * 32
    wanted, items = int(np.clip(units, *_WIDTHS)), len(counts)
    memory = told("MemTotal", "/proc/meminfo") or sys.maxsize
    affordable = affordable_width(users, items, int(lasting.sum()), int(counts.sum()), memory)
    width = max(_WIDTHS[0], min(wanted, items // _ITEMS_A_UNIT // 32 * 32, affordable))
    bound = f"width {width} and not {wanted:,}, because of {users:,} users and {items:,} items"
    return width, bound if width < wanted else ""


def affordable_width(users: int, items: int, lasting: int, pairs: int, memory: int) -> int:
    """The multiple of 32 up to which memory and time last.

    While singular vectors are found there are two blocks of the smaller side of the matrix, with what products and
    factors of them need, and the rows of items twice; then those and W.

    Args:
        lasting: items of 5 users and more, which alone have rows in the encoder.
        memory: bytes that the machine has, of which a run takes three quarters at most.
    """
    room = min(max(_MEMORY, _MEMORY_A_PAIR * pairs), 3 * memory // 4) - _PAIR * pairs - _NAME * (users + items)
    numbers = max(items + lasting, 5 * min(users, lasting) // 2 + 2 * lasting, 1)
    by_time = math.isqrt(max(_PRODUCTS, _PRODUCTS_A_PAIR * pairs) // max(1, users))
    return max(0, min(room // (4 * numbers), by_time)) // 32 * 32
