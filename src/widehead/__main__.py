"""``python -m widehead``: the command line."""

from widehead.cli import main

main()
