"""Options: defaults of every job, one clear error for each mistake, and the same options back from config.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from widehead.errors import CheckpointError
from widehead.jobs import JOBS, configure
from widehead.losses import WeightedSquaredError
from widehead.names import LOSSES
from widehead.options import OPTIONS, TrainingConfig
from widehead.options.intervals import Interval
from widehead.training.folder import RunFolder


def having(parameter: str) -> str:
    """The optimisers that a message names: those that are listed with this parameter."""
    return f"should come with head_optimizer {' or '.join(OPTIONS[f'head_{parameter}'].optimizers)}"


def config_of(job: str = "recommender", **options: object) -> TrainingConfig:
    files = {} if job == "demo" else {"train": "train.txt"}
    return configure(job, **{"out": "run", **files, **options})


@pytest.mark.parametrize("job", JOBS)
def test_defaults_of_every_job_are_valid_and_come_back_from_json(job: str) -> None:
    config = config_of(job, at=[32, 16], head_lr=0.5)
    assert config.at == (32, 16)
    assert TrainingConfig.from_json(config.to_json()) == config
    defaults = config_of(job)
    assert all(getattr(defaults, name) == value for name, value in JOBS[job].presets[0].values.items())
    assert defaults.loss in (LOSSES if defaults.head == "exact" else [None])


def test_every_option_is_checked() -> None:
    for option in dataclasses.fields(TrainingConfig):
        if option.name == "train":
            continue
        with pytest.raises(ValueError, match=f"`{option.name}`"):
            dataclasses.replace(config_of(), **{option.name: object()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "12"}, r"`width` should be a whole number, at least 0 and below 2\^31. Found '12'"),
        ({"width": True}, "width"),
        ({"hidden": [0]}, "hidden"),
        ({"input_dropout": 1.0}, r"in \[0, 1\)"),
        ({"head_lr": float("nan")}, "head_lr"),
        ({"loss": "softmax"}, "one of squared-error, weighted-squared-error"),
        ({"loss": "squared-error", "loss_options": {"eps": 0.1}}, r"squared-error takes: no options.*'eps'"),
        ({"loss": "spherical-softmax", "loss_options": {"eps": -1.0}}, "eps"),
        ({"epochs": None}, "`epochs` and `minutes`"),
        ({"evaluate_every": "often"}, "evaluate_every"),
        ({"device": "tpu"}, "device"),
        ({"job": "demo", "train": "x"}, "`train` should be left out for the job demo"),
        ({"head_momentum": 0.9}, f"`head_momentum`.*{having('momentum')}. Found 'newton'"),
        ({"head_nesterov": True}, f"`head_nesterov`.*{having('nesterov')}. Found 'newton'"),
        ({"head_optimizer": "sgd", "head_nesterov": True}, "`head_nesterov` should come with a head_momentum above 0"),
        ({"head_optimizer": "sgd", "head_decay": 0.9}, f"`head_decay`.*{having('decay')}. Found 'sgd'"),
        ({"head_optimizer": "muon", "head_decay": 0.9}, f"`head_decay`.*{having('decay')}. Found 'muon'"),
        ({"head_optimizer": "sgd", "head_damping": 0.1}, f"`head_damping`.*{having('damping')}. Found 'sgd'"),
        ({"colour": "red"}, "in options, such as job, out, train, .*. Found 'colour'"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"head_optimizer": "sgd", "head_momentum": 0.9, "head_nesterov": True},
        {"head_optimizer": "newton", "head_decay": 0.9, "head_damping": 0.1},
        {"head_optimizer": "shampoo", "head_decay": 0.9, "head_damping": 0.1},
        {"head_optimizer": "muon", "head_damping": 0.1},
    ],
)
def test_optimisers_take_options_of_their_own(options: dict[str, object]) -> None:
    config = config_of(**options)
    assert {name: getattr(config, name) for name in options} == options


def test_what_was_measured_with_the_jobs_optimiser_does_not_go_with_another() -> None:
    assert (config_of("multilabel").head_damping, config_of("multilabel").head_decay) == (0.15, 1.0)
    assert config_of("multilabel", head_optimizer="newton") == config_of("multilabel")
    other = config_of("multilabel", head_optimizer="shampoo")
    assert (other.head_lr, other.head_damping, other.head_decay) == (None, None, None)


@pytest.mark.parametrize(
    "options", [{"head": "sampled"}, {"loss": "spherical-softmax"}, {"head_optimizer": "sgd"}], ids=str
)
def test_only_least_squares_leaves_the_encoder_of_labels_as_it_begins(options: dict[str, str]) -> None:
    own = config_of("multilabel")
    assert (own.encoder_init, own.encoder_lr, own.epochs) == ("svd", 0.0, 1)
    other = config_of("multilabel", **options)
    assert other.encoder_init == "random"
    assert other.encoder_lr > 0.0
    assert config_of("multilabel", loss="squared-error", head="exact") == own


@pytest.mark.parametrize(
    "options",
    [
        {"head": "exact"},
        {"loss": "taylor-softmax"},
        {"head_optimizer": "sgd"},
        {"head_decay": 0.9},
        {"head_storage": "rows.bin"},
        {"head_weight_decay": 0.1},
    ],
    ids=str,
)
def test_a_language_model_has_the_exact_head_where_an_option_of_it_is_given(options: dict[str, object]) -> None:
    own = config_of("language-model")
    assert (own.head, own.head_optimizer, own.loss) == ("sampled", "adam", None)
    assert dict(own.head_options) == {"sampler": "log-uniform"}
    assert dict(config_of("language-model", head="hierarchical").head_options) == {}
    other = config_of("language-model", **options)
    assert (other.head, dict(other.head_options)) == ("exact", {})
    assert other.loss == options.get("loss", "spherical-softmax")
    assert other.head_optimizer == options.get("head_optimizer", "newton")


def test_other_heads_of_labels_are_trained_by_adagrad_with_its_learning_rate() -> None:
    assert config_of("multilabel", loss="z-loss").encoder_optimizer == "adam"
    own = config_of("multilabel", head="sampled")
    assert (own.head_optimizer, own.encoder_optimizer, own.head_lr) == ("adagrad", "adagrad", None)
    assert config_of("multilabel", head="sampled", head_optimizer="adagrad") == own
    for asked in ({"head_optimizer": "adam"}, {"encoder_optimizer": "adam"}):
        other = config_of("multilabel", head="sampled", **asked)
        assert (other.head_optimizer, other.encoder_optimizer) == ("adam", "adam")
        assert other.encoder_lr < own.encoder_lr / 4


def test_adagrad_has_no_weight_decay_of_the_encoder() -> None:
    with pytest.raises(ValueError, match="`encoder_weight_decay` should come with encoder_optimizer adam"):
        config_of("recommender", encoder_lr=0.1, encoder_optimizer="adagrad", encoder_weight_decay=0.1)


def test_axes_need_a_matrix_of_inputs() -> None:
    with pytest.raises(ValueError, match=r"`encoder_init` should be random.*language-model"):
        config_of("language-model", encoder_init="svd")


def test_unknown_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of recommender.*'speech'"):
        configure("speech", out="run")


def test_the_loss_is_made_with_its_options() -> None:
    config = config_of(loss="weighted-squared-error", loss_options={"unobserved_weight": 0.1, "values": "weights"})
    loss = config.make_loss()
    assert isinstance(loss, WeightedSquaredError)
    assert (loss.unobserved_weight, loss.values) == (0.1, "weights")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"conf should hold JSON.*line 1"),
        ("[]", "one JSON object"),
        ('{"job": "recommender"}', "`out` is missing"),
        ('{"job": "recommender", "out": "x", "train": "y", "widht": 3}', "in conf, such as width. Found 'widht'"),
    ],
)
def test_config_files_that_are_wrong_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig.from_json(text, "conf")


@pytest.mark.parametrize("text", ["", "0 steps", "1.5 epochs", "-3 steps", "5", "steps", "3 weeks"])
def test_intervals_that_are_wrong_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="interval"):
        Interval.parse(text)


def test_intervals_are_due_when_they_say() -> None:
    def steps(interval: Interval) -> list[int]:
        """Steps at which it is due, with epochs of 4 steps that take 2 seconds each."""
        due, last = [], 0
        for step in range(1, 17):
            if interval.due(step=step, epochs=step // 4, epoch_ends=step % 4 == 0, waited=2.0 * (step - last)):
                due.append(step)
                last = step
        return due

    assert steps(Interval.parse("5 steps")) == [5, 10, 15]
    assert steps(Interval.parse("2 epochs")) == [8, 16]
    assert steps(Interval.parse("6 s")) == [3, 6, 9, 12, 15]
    assert steps(Interval.parse("0.2 minutes")) == [6, 12]


def test_a_run_folder_is_made_once_and_found_again(tmp_path: Path) -> None:
    config = config_of(out=str(tmp_path / "a" / "run"))
    folder = RunFolder.create(config)
    assert RunFolder.open(folder.path) == (folder, config)
    assert json.loads(folder.config_path.read_text())["job"] == "recommender"
    with pytest.raises(CheckpointError, match=r"should be empty.*resume"):
        RunFolder.create(config)


def test_what_a_kill_at_the_start_leaves_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.json.tmp").write_text("{")
    RunFolder.create(config_of(out=str(tmp_path)))


@pytest.mark.parametrize("content", [None, "{", '{"job": "recommender"}'])
def test_folders_that_hold_no_run_are_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        RunFolder.open(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match="should be a folder"):
        RunFolder.create(config_of(out=str(tmp_path / "run")))
