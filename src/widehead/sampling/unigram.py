"""Classes in proportion to a power of their frequency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from widehead.errors import check_number
from widehead.sampling.base import Frequencies, Sampler, checked_draws, checked_frequencies


class UnigramSampler(Sampler):
    """q_j ∝ f_j^α for given frequencies f; a draw is a binary search in the running sums, O(log D).

    A class of frequency 0 counts as one of the smallest frequency above 0, so that every class can be drawn:
    estimates of sums over all classes would miss it otherwise. Frequencies are part of the state_dict; with them all
    else is made again when a state is loaded.

    Args:
        frequencies: (D,) how often each class occurs, as counts or parts; finite, at least 0, not all 0.
        alpha: the power α, at least 0. 1 is the plain unigram distribution, 0.75 that of word2vec, 0 uniform.
        device: as in torch.

    Raises:
        TypeError, ValueError: wrong frequencies or alpha.

    >>> UnigramSampler([4.0, 0.0, 1.0], alpha=1.0).log_prob(torch.arange(3)).exp()
    tensor([0.6667, 0.1667, 0.1667], dtype=torch.float64)
    """

    frequencies: Tensor
    _cumulative: Tensor
    _smallest: Tensor
    _largest: Tensor

    def __init__(
        self, frequencies: Frequencies, *, alpha: float = 0.75, device: torch.device | str | None = None
    ) -> None:
        given = _checked(frequencies)
        super().__init__(given.numel(), device=device)
        check_number("alpha", alpha)
        self.alpha = float(alpha)
        self.register_buffer("frequencies", given.to(self.device))
        self._prepare()

    def _prepare(self) -> None:
        """Set what follows from the frequencies: their range above 0, and the running sums of their power."""
        smallest, largest = torch.aminmax(self.frequencies[self.frequencies > 0])
        self.register_buffer("_smallest", smallest, persistent=False)
        self.register_buffer("_largest", largest, persistent=False)
        cumulative = self._log_weights(self.frequencies).exp().cumsum(0)
        self.register_buffer("_cumulative", cumulative, persistent=False)

    def _log_weights(self, frequencies: Tensor) -> Tensor:
        """log of f^α; f is divided by the largest frequency so that no power overflows."""
        return self.alpha * (torch.maximum(frequencies, self._smallest).log() - self._largest.log())

    def sample(self, n: int) -> Tensor:
        uniform = torch.rand(checked_draws(n), dtype=torch.float64, device=self.device)
        ids = torch.searchsorted(self._cumulative, uniform * self._cumulative[-1], right=True)
        return ids.clamp_max(self.num_classes - 1)

    def log_prob(self, class_ids: Tensor) -> Tensor:
        return self._log_weights(self.frequencies[class_ids]) - self._cumulative[-1].log()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UnigramSampler:
        # Numbers stay in float64 when the head goes to another type: running sums of 10^6 classes need it.
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            if not buffer.is_meta:
                self._buffers[name] = buffer.to(self.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        *_, error_msgs = rest
        try:
            if prefix + "frequencies" in state_dict:
                _checked(state_dict[prefix + "frequencies"])
        except (TypeError, ValueError) as error:
            error_msgs.append(str(error))
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._prepare()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}"


def _checked(frequencies: Frequencies) -> Tensor:
    """The frequencies in float64; ValueError if all are 0."""
    given = checked_frequencies(frequencies)
    if not bool((given > 0).any()):
        raise ValueError("Parameter `frequencies` should not be 0 everywhere.")
    return given
