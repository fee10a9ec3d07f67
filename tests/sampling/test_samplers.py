"""Samplers that do not look at the hidden layer: what is drawn is what log_prob says."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from widehead.sampling import LogUniformSampler, Sampler, UniformSampler, UnigramSampler

D = 40
FREQUENCIES = torch.tensor([float((7 * j) % 11) for j in range(D)])  # four of them are 0


def samplers() -> list[Sampler]:
    return [
        UniformSampler(D),
        LogUniformSampler(D),
        UnigramSampler(FREQUENCIES),
        UnigramSampler(FREQUENCIES, alpha=1.0),
        UnigramSampler(FREQUENCIES, alpha=0.0),
    ]


def draws_fit(counts: Tensor, log_q: Tensor) -> bool:
    """A chi-square test at level 10⁻⁴; seeds are fixed, so that it passes for good."""
    expected = counts.sum() * log_q.exp()
    return bool(stats.chisquare(counts.double(), expected).pvalue > 1e-4)


@pytest.mark.parametrize("sampler", samplers(), ids=repr)
def test_draws_have_the_probabilities_they_say(sampler: Sampler) -> None:
    torch.manual_seed(1)
    log_q = sampler.log_prob(torch.arange(D))
    assert float(log_q.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    ids = sampler.sample(200_000)
    assert ids.dtype == torch.int64
    assert draws_fit(torch.bincount(ids, minlength=D), log_q)


def test_the_chi_square_test_finds_a_wrong_distribution() -> None:
    torch.manual_seed(1)
    counts = torch.bincount(LogUniformSampler(D).sample(200_000), minlength=D)
    assert not draws_fit(counts, UniformSampler(D).log_prob(torch.arange(D)))


@pytest.mark.parametrize("sampler", samplers(), ids=repr)
def test_shapes_and_seeds(sampler: Sampler) -> None:
    assert sampler.log_prob(torch.zeros(3, 2, dtype=torch.int64)).shape == (3, 2)
    assert sampler.sample(0).shape == (0,)
    torch.manual_seed(5)
    first = sampler.sample(50)
    torch.manual_seed(5)
    assert torch.equal(first, sampler.sample(50))
    for n in (-1, 2.5, True):
        with pytest.raises(ValueError, match="Parameter `n`"):
            sampler.sample(n)  # type: ignore[arg-type]


def test_formulas() -> None:
    ids = torch.arange(D)
    zipf = torch.log((ids + 2.0).double() / (ids + 1.0).double()) / math.log(D + 1)
    torch.testing.assert_close(LogUniformSampler(D).log_prob(ids).exp(), zipf)
    raised = torch.where(FREQUENCIES > 0, FREQUENCIES, 1.0).double() ** 0.75  # 1 is the smallest above 0
    torch.testing.assert_close(UnigramSampler(FREQUENCIES).log_prob(ids).exp(), raised / raised.sum())


@pytest.mark.parametrize("make", [UniformSampler, LogUniformSampler, lambda n: UnigramSampler(torch.ones(n))])
def test_one_class(make: type[Sampler]) -> None:
    sampler = make(1)
    assert sampler.sample(4).tolist() == [0, 0, 0, 0]
    assert float(sampler.log_prob(torch.tensor([0]))) == pytest.approx(0.0, abs=1e-15)


def test_many_classes_reach_both_ends() -> None:
    torch.manual_seed(0)
    many = 10**8
    ids = LogUniformSampler(many).sample(200_000)
    assert int(ids.min()) == 0
    assert int(ids.max()) > 0.9 * many
    assert int(ids.max()) < many
    rare = ids[ids > many // 2]
    assert float((rare % 2).double().mean()) == pytest.approx(0.5, abs=4.0 * 0.5 / len(rare) ** 0.5)  # no id is skipped


def test_frequencies_of_any_scale() -> None:
    extreme = UnigramSampler([1e300, 1e-300, 0.0], alpha=2.0)
    assert bool(torch.isfinite(extreme.log_prob(torch.arange(3))).all())
    counts, parts = UnigramSampler([3, 1, 0]), UnigramSampler([0.75, 0.25, 0.0])
    torch.testing.assert_close(counts.log_prob(torch.arange(3)), parts.log_prob(torch.arange(3)))


def test_frequencies_are_copied() -> None:
    given = torch.tensor([3.0, 1.0], dtype=torch.float64)
    sampler = UnigramSampler(given, alpha=1.0)
    given.fill_(1.0)
    assert float(sampler.log_prob(torch.tensor(0)).exp()) == pytest.approx(0.75)


def test_frequencies_stay_in_double_precision_and_come_back_from_a_state() -> None:
    sampler = UnigramSampler(FREQUENCIES)
    before = sampler.log_prob(torch.arange(D))
    torch.testing.assert_close(sampler.to(torch.float16).log_prob(torch.arange(D)), before, rtol=0.0, atol=0.0)
    state = sampler.state_dict()
    assert list(state) == ["frequencies"]
    other = UnigramSampler(torch.ones(D))
    other.load_state_dict(state)
    torch.testing.assert_close(other.log_prob(torch.arange(D)), before, rtol=0.0, atol=0.0)
    torch.manual_seed(0)
    assert draws_fit(torch.bincount(other.sample(100_000), minlength=D), before)
    with pytest.raises(RuntimeError, match=r"frequencies\[1\] = -1.0"):
        other.load_state_dict({"frequencies": torch.tensor([1.0, -1.0] * (D // 2))})


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        ([1.0, -2.0], r"Found frequencies\[1\] = -2.0"),
        ([float("nan"), 1.0], r"Found frequencies\[0\] = nan"),
        ([1.0, float("inf")], r"Found frequencies\[1\] = inf"),
        ([0.0, 0.0], "0 everywhere"),
        ([], "shape"),
        ([[1.0]], "shape"),
    ],
)
def test_wrong_frequencies_are_named(frequencies: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnigramSampler(frequencies)


def test_other_wrong_options_are_named() -> None:
    with pytest.raises(TypeError, match="Found str"):
        UnigramSampler("many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha"):
        UnigramSampler([1.0], alpha=-1.0)
    with pytest.raises(ValueError, match="num_classes"):
        UniformSampler(0)
