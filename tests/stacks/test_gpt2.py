"""GPT-2 of transformers with another last layer: refused while it is tied, generating as before, trained by Trainer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import widehead as wh

pytest.importorskip("accelerate", reason="make test-stacks installs it")
transformers = pytest.importorskip("transformers", reason="make test-stacks installs it")

WORDS, LENGTH = 90, 10
HEADS = {
    "sampled": functools.partial(wh.SampledSoftmaxHead, negatives=20),
    "full": wh.FullSoftmaxHead,
    "exact": functools.partial(wh.ExactHead, loss=wh.losses.SphericalSoftmax()),
}


def gpt2(tie: bool = False) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=tie, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def texts() -> Tensor:
    return torch.randint(1, WORDS, (32, LENGTH), generator=torch.Generator().manual_seed(1))


def loss_of(model: Any, ids: Tensor) -> Tensor:
    torch.manual_seed(int(ids.sum()))  # the same draws, however often a program draws numbers of its own
    hidden = model.transformer(ids).last_hidden_state
    return model.lm_head(hidden[:, :-1], ids[:, 1:])


def optimizer_of(model: Any) -> wh.optim.Together:
    rows = [model.transformer.wte.weight]
    parts: list[torch.optim.Optimizer] = []
    if isinstance(model.lm_head, wh.ExactHead):
        parts.append(wh.optim.Newton(model.lm_head))
    elif model.lm_head.sparse:
        rows += model.lm_head.parameters()
    rest = [p for p in model.parameters() if all(p is not row for row in rows)]
    return wh.optim.Together(torch.optim.AdamW(rest, lr=0.01), wh.optim.RowAdam(rows, lr=0.01), *parts)


class WithTargets(transformers.Trainer):  # type: ignore[misc,name-defined]
    """The loss is the head's, of hidden layers and the words that follow."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **options: Any) -> Any:
        if return_outputs:
            return super().compute_loss(model, inputs, return_outputs, **options)
        return loss_of(model, inputs["labels"])


def test_a_tied_model_is_refused_and_the_way_out_works() -> None:
    model = gpt2(tie=True)
    with pytest.raises(ValueError, match=r"tied to transformer\.wte\.weight.*tie_word_embeddings"):
        wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with pytest.raises(ValueError, match=r"tie_word_embeddings = False before that"):
        wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    model.config.tie_word_embeddings = False
    wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)


@pytest.mark.parametrize("name", ["sampled", "full"])
def test_it_generates_what_it_did(name: str) -> None:
    model = gpt2().eval()
    expected = model.generate(texts()[:3, :4], max_new_tokens=5, do_sample=False)
    loss = model(texts(), labels=texts()).loss
    wh.swap_head(model, "lm_head", HEADS[name])
    assert torch.equal(model.generate(texts()[:3, :4], max_new_tokens=5, do_sample=False), expected)
    assert torch.allclose(model(texts(), labels=texts()).loss, loss)
    wh.restore_linear(model, "lm_head")
    assert torch.equal(model.generate(texts()[:3, :4], max_new_tokens=5, do_sample=False), expected)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("clip", "passes"), [(0.0, 1), (0.5, 1), (0.0, 4)])
def test_trainer_trains_what_a_loop_trains(name: str, clip: float, passes: int, tmp_path: Path) -> None:
    ends = []
    for by_trainer in (True, False):
        model = gpt2().double()  # Adam makes much of the rounding of gradients that are 0, as those of keys' biases
        wh.swap_head(model, "lm_head", HEADS[name])
        optimizer = optimizer_of(model)
        transformers.set_seed(5)
        if by_trainer:
            arguments = transformers.TrainingArguments(
                output_dir=str(tmp_path), per_device_train_batch_size=8, num_train_epochs=2, max_grad_norm=clip,
                lr_scheduler_type="constant", save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
                train_sampling_strategy="sequential", seed=5, gradient_accumulation_steps=passes,
            )  # fmt: skip
            data = [{"input_ids": row, "labels": row} for row in texts()]
            trainer = WithTargets(
                model=model, args=arguments, train_dataset=data, eval_dataset=data, optimizers=(optimizer, None)
            )
            trainer.train()
            with torch.no_grad():
                expected = model(texts(), labels=texts()).loss
            assert trainer.evaluate()["eval_loss"] == pytest.approx(float(expected), rel=1e-6)
        else:
            for of_step in texts().split(8 * passes) * 2:
                for ids in of_step.split(8):
                    (loss_of(model, ids) / passes).backward()
                if clip:
                    optimizer.clip_grad_norm_(clip)
                optimizer.step()
                optimizer.zero_grad()
        ends.append([*(p.detach() for p in model.parameters()), model.lm_head.weight()])
    for found, expected in zip(*ends, strict=True):
        assert torch.allclose(found, expected, atol=1e-9) if clip else torch.equal(found, expected)
    assert not torch.allclose(ends[0][-1], gpt2().lm_head.weight.double())


@pytest.mark.parametrize("name", HEADS)
def test_it_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, other = gpt2(), gpt2()
    head = wh.swap_head(model, "lm_head", HEADS[name])
    head.load_weight(torch.randn(WORDS, 16))
    model.save_pretrained(tmp_path)
    wh.swap_head(other, "lm_head", HEADS[name])
    from safetensors.torch import load_file

    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other.eval()(texts()).logits, model.eval()(texts()).logits)

    class Swapped(transformers.GPT2LMHeadModel):  # type: ignore[misc,name-defined]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            wh.swap_head(self, "lm_head", HEADS[name])

    assert torch.equal(Swapped.from_pretrained(tmp_path).eval()(texts()).logits, model(texts()).logits)


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_sparse_word_vectors_go_through_the_compiler(backend: str | None) -> None:
    model = gpt2()
    wh.swap_head(model, "lm_head", HEADS["full"])
    call = loss_of if backend is None else torch.compile(loss_of, backend=backend)
    call(model, texts()).backward()
    gradient = model.transformer.wte.weight.grad
    assert gradient.is_sparse
    model.zero_grad()
    model.transformer.wte.sparse = False
    loss_of(model, texts()).backward()
    assert torch.allclose(gradient.to_dense(), model.transformer.wte.weight.grad, atol=1e-6)
