"""A CUDA device that the CPU plays: numbers, control flow and errors are those of a card; time and races are not.

Tensors "on cuda" hold their numbers in the CPU's memory, and every operation on them is seen. So

* an operation on tensors of both devices is the error that it is on a card;
* each wait of the host for the device is counted, with the line of the project that asks for it;
* the kernels that a card would launch are counted;
* what a copy to the host with ``non_blocking=True`` brings is not there before the device has been waited for.

    with played_cuda() as device:
        head = wh.ExactHead(8, 100, device="cuda")
        with device.counting() as seen:
            head(hidden, targets)
        assert seen.waits == []

Types that CUDA's kernels lack, and torch.compile, are not played.
"""

from support.played.counts import Count, Device, Wait
from support.played.playing import now_played, played_cuda

__all__ = ["Count", "Device", "Wait", "now_played", "played_cuda"]
