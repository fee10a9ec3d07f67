"""Data-parallel training by several processes, in which each of them would step its own head by its own examples."""

import gc
import sys

from torch import distributed, nn

_AVAILABLE = distributed.is_available()


def in_several() -> bool:
    """Whether there is a group of processes, and more than one of them."""
    return _AVAILABLE and distributed.is_initialized() and distributed.get_world_size() > 1


def refuse_data_parallel(head: nn.Module) -> None:
    """RuntimeError if ``head`` is in a model whose gradients torch averages over several processes.

    W is no parameter, so torch would leave it out: encoders would agree and heads would drift apart.
    """
    kinds: tuple[type, ...] = (nn.parallel.DistributedDataParallel,)
    if fsdp := sys.modules.get("torch.distributed.fsdp"):  # it takes seconds to import
        kinds += fsdp.FullyShardedDataParallel, fsdp.FSDPModule
    for found in gc.get_objects():  # torch keeps no list of them
        if issubclass(type(found), kinds) and any(module is head for module in found.modules()):
            raise RuntimeError(
                f"An exact head should be outside of {type(found).__name__}, which averages gradients of parameters "
                "alone and would leave each process a head of its own. Found it inside, in "
                f"{distributed.get_world_size()} processes. Wrap the encoder alone, and give the head the hidden "
                "layers and targets of all processes, so that each makes the same step (docs/howto/stacks.md)."
            )
