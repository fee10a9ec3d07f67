from widehead.options.heads import split_heads


def test_heads_of_runs_in_several_processes() -> None:
    """A head that takes a mesh, or refuses it in words of its own, need not be one that a run is made with."""
    assert split_heads() == ["exact"]
