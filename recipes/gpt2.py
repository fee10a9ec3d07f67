"""GPT-2 with 200,000 words: what a step costs with a dense last layer, with a head, and with sparse word vectors too.

    python recipes/gpt2.py [--words 200000] [--width 256] [--layers 4] [--batch 8] [--length 64] [--rounds 9] [--tiny]

Needs transformers (pip install widehead[stacks]). Random weights and words; each step is forward, backward and
optimisers. The steps take turns in one process, and the medians are appended to recipes/results/gpt2.jsonl, one line.

    dense           nn.Linear, cross-entropy, AdamW over all
    head            swap_head(…, sparse=False): AdamW still writes each word vector at every step
    head and rows   swap_head(…): the rows of the batch alone, by RowAdam
    exact           the same with the exact head and Newton
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from provenance import append
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import widehead as wh
from widehead.bench.measure import interleaved

SAMPLED = functools.partial(wh.SampledSoftmaxHead, negatives=2_000, sampler="log-uniform")
EXACT = functools.partial(wh.ExactHead, loss=wh.losses.SphericalSoftmax())


def gpt2(words: int, width: int, layers: int, length: int) -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=words, n_positions=length, n_embd=width, n_layer=layers, n_head=4, tie_word_embeddings=False
    )
    return GPT2LMHeadModel(config).train()


def dense(model: Any) -> Callable[[Tensor], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(ids: Tensor) -> None:
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()

    return step


def with_head(model: Any, kind: Any, *, sparse: bool) -> Callable[[Tensor], object]:
    head = wh.swap_head(model, "lm_head", kind, sparse=sparse)
    is_exact = isinstance(head, wh.ExactHead)
    rows = [model.transformer.wte.weight] * sparse + ([] if is_exact else list(head.parameters()))
    rest = [p for p in model.parameters() if all(p is not row for row in rows)]
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=1e-3), wh.optim.RowAdam(rows, lr=1e-3)]
    optimizer = wh.optim.Together(*parts, *([wh.optim.Newton(head)] if is_exact else []))

    def step(ids: Tensor) -> None:
        optimizer.zero_grad()
        hidden = model.transformer(ids).last_hidden_state
        model.lm_head(hidden[:, :-1], ids[:, 1:]).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"words": 200_000, "width": 256, "layers": 4, "batch": 8, "length": 64, "rounds": 9}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tiny", action="store_true", help="to see that it runs; nothing is stored")
    given = parser.parse_args()
    if given.tiny:
        given.words, given.width, given.layers, given.rounds = 500, 16, 1, 1
    sizes = given.words, given.width, given.layers, given.length
    steps = {
        "dense": dense(gpt2(*sizes)),
        "head": with_head(gpt2(*sizes), SAMPLED, sparse=False),
        "head and rows": with_head(gpt2(*sizes), SAMPLED, sparse=True),
        "exact": with_head(gpt2(*sizes), EXACT, sparse=True),
    }
    batches = torch.randint(0, given.words, (64, given.batch, given.length)).unbind()
    turns = {name: _in_turn(step, batches) for name, step in steps.items()}
    for turn in turns.values():
        turn()  # states of optimisers are made
    found = interleaved(turns, given.rounds, torch.device("cpu"))
    medians = {name: round(statistics.median(seconds), 4) for name, seconds in found.items()}
    record = {"recipe": "gpt2", **{name: getattr(given, name) for name in defaults}, "seconds_a_step": medians}
    print(record if given.tiny else append("gpt2", record))


def _in_turn(step: Callable[[Tensor], object], batches: tuple[Tensor, ...]) -> Callable[[], object]:
    count = 0

    def turn() -> None:
        nonlocal count
        step(batches[count % len(batches)])
        count += 1

    return turn


if __name__ == "__main__":
    main()
