from widehead.names import HEADS
from widehead.options.heads import split_heads


def test_heads_of_runs_in_several_processes() -> None:
    """The classes of a tree and of frequency bands are in no order that could be cut: each process has all of them."""
    assert set(HEADS) - set(split_heads()) == {"hierarchical", "adaptive"}
    assert split_heads()[0] == "exact"
