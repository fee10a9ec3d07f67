"""The walk from the command line: see the package."""

import argparse
import sys

from support.walk.run import report, walk


def main() -> int:
    parser = argparse.ArgumentParser(description="A random walk over the exact head, beside a dense float64 twin.")
    parser.add_argument("--actions", type=int, default=20_000, help="end after the walk that reaches so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first walk")
    parser.add_argument("--walk", type=int, help="one walk alone, with all of its last actions")
    parser.add_argument(
        "--cached", action="store_true", help="the record that a GPU has, which others can be told to use"
    )
    given = parser.parse_args()
    alone = given.walk is not None
    actions, first = (1, given.walk) if alone else (given.actions, given.first)
    found = walk(given.seed, actions, first=first, progress=True, cached=given.cached)
    print(report(found))
    return 1 if found.failures else 0


sys.exit(main())
