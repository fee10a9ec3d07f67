"""``python -m widehead``: the command line."""

from widehead.cli import main

if __name__ == "__main__":
    main()
