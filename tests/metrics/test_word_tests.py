"""Agreement with people's judgements and answers to analogies, against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from widehead.metrics import analogy_answers, rank_correlation, word_tests

NUMBERS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


@given(pairs=NUMBERS)
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor(column, dtype=torch.float32) for column in zip(*pairs, strict=True))
    assume(len(first.unique()) > 1)
    assume(len(second.unique()) > 1)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second)[0], abs=1e-12)


def test_a_constant_has_no_correlation() -> None:
    assert np.isnan(rank_correlation(torch.ones(3), torch.arange(3.0)))


@pytest.mark.parametrize("at_once", [1, 1 << 24])
def test_answers_are_those_of_all_cosines(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_tests, "_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 5, generator=generator) * torch.rand(30, 1, generator=generator)
    vectors[4] = 0.0
    questions = torch.randint(0, 30, (40, 3), generator=generator)
    left_out = torch.tensor([3, 7])
    found = analogy_answers(vectors, questions, left_out)
    rows = vectors.double().numpy()
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    for (a, b, c), answer in zip(questions.tolist(), found.tolist(), strict=True):
        cosines = {i: rows[i] @ (rows[b] - rows[a] + rows[c]) for i in range(30) if i not in {a, b, c, 3, 7}}
        assert answer == max(cosines, key=lambda i: cosines[i])


def test_inside_autocast_answers_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, questions = torch.randn(500, 4, generator=generator), torch.randint(0, 500, (200, 3), generator=generator)
    expected = analogy_answers(vectors, questions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(analogy_answers(vectors, questions), expected)


def test_no_question_has_no_answer() -> None:
    assert analogy_answers(torch.eye(4), torch.empty(0, 3, dtype=torch.int64)).shape == (0,)


def test_wrong_arguments() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    for first, second in ((torch.ones(1), torch.ones(1)), (torch.ones(2), torch.ones(3)), (torch.ones(2, 2),) * 2):
        with pytest.raises(ValueError, match="m of at least 2"):
            rank_correlation(first, second)
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation(torch.tensor([1.0, float("nan")]), torch.ones(2))
    with pytest.raises(ValueError, match=r"`vectors` should be .* at least 4"):
        analogy_answers(torch.eye(3), ids)
    with pytest.raises(ValueError, match="`questions` should have shape"):
        analogy_answers(torch.eye(4), ids[:, :2])
    with pytest.raises(ValueError, match=r"ids in \[0, 4\). Found 0 and 4"):
        analogy_answers(torch.eye(4), torch.tensor([[0, 1, 4]]))
    with pytest.raises(ValueError, match=r"at least 5.*Found \(4, 4\)"):
        analogy_answers(torch.eye(4), torch.tensor([[0, 1, 2]]), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="finite"):
        analogy_answers(torch.eye(4).fill_diagonal_(float("nan")), ids)
