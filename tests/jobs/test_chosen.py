"""What jobs chose and keep in JSON files: what cannot have been chosen is refused, whatever stands in its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
from support.chosen import rooms, trained, write_parts

from widehead.errors import CheckpointError
from widehead.jobs.base import Chosen
from widehead.jobs.candidates import TOLD, Choice
from widehead.jobs.probe import Probe
from widehead.jobs.session_votes import FEATURES, SessionWeights
from widehead.jobs.trial import Trial
from widehead.jobs.user_votes import UserWeights
from widehead.report.page import write_report

BEFORE, AFTER = {"recall@5": 0.25, "ndcg@5": 0.5}, {"recall@5": 0.5, "ndcg@5": 0.75}
RACE = [[part, margin, 1.0 + part + margin] for part in (0.0, 0.5) for margin in (0.0, 0.25)]
CHOSEN: list[Chosen] = [
    Choice(0.5, 0.25, 1e-3, [1.0] * len(TOLD), 9, BEFORE, AFTER, RACE, 0.5),
    UserWeights([1.0] * len(UserWeights.features), 9, BEFORE, AFTER),
    SessionWeights([1.0] * len(FEATURES), 9, BEFORE, AFTER, [2.0] * len(FEATURES), 7, BEFORE, AFTER),
    Probe(500, "", 1_000, 4, 200, BEFORE, AFTER),
    Probe(0, "users are few"),
    Trial(8, 0.5, "", 1_000, 4, 200, 300, [[16.0, 0.0, 0.0, 0.1], [8.0, 0.5, 0.2, 0.0]]),
    Trial(8, 0.75, "several processes"),
]
NUMBER = ['"0.5"', "null", "NaN", "Infinity", "1e309", "true", "[]", "{}"]
WRONG = {
    float: [*NUMBER, "1" + "0" * 400],
    int: [*NUMBER, "-1", "2.5", "1e300"],
    str: ["1", "null", "true", "[]", "{}", "NaN"],
    list: ["1", '"12"', "null", "true", "{}", "NaN"],
    dict: ["1", '"12"', "null", "true", "[]", "NaN"],
}
MARK = "what is put here"


def places(value: Any, kind: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], type]]:
    """Where something of JSON stands in it, and what it should be."""
    of = get_origin(kind) or kind
    yield path, of
    if of in (list, dict):
        for key in value if of is dict else range(len(value)):
            yield from places(value[key], kind.__args__[-1], (*path, key))


def with_mark(tree: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return MARK
    changed = {**tree} if isinstance(tree, dict) else [*tree]
    changed[path[0]] = with_mark(tree[path[0]], path[1:])
    return changed


def read(kind: type[Chosen], path: Path, text: str) -> Chosen | None:
    path.write_text(text)
    return kind.read(path)


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: type(chosen).__name__)
def test_what_was_written_is_read(chosen: Chosen, tmp_path: Path) -> None:
    assert type(chosen).read(tmp_path / "none.json") is None
    chosen.write(tmp_path / "chosen.json")
    found = type(chosen).read(tmp_path / "chosen.json")
    assert found == chosen
    header, rows = found.table()
    assert {len(row) for row in rows} == {len(header)}


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: type(chosen).__name__)
def test_what_is_of_another_type_is_refused_wherever_it_stands(chosen: Chosen, tmp_path: Path) -> None:
    path, tree, hints = tmp_path / "chosen.json", asdict(chosen), get_type_hints(type(chosen))  # type: ignore[call-overload]
    for field in fields(chosen):  # type: ignore[arg-type]
        for place, of in places(tree[field.name], hints[field.name], (field.name,)):
            for wrong in WRONG[of]:
                with pytest.raises(CheckpointError, match=r"chosen\.json should hold") as caught:
                    read(type(chosen), path, json.dumps(with_mark(tree, place)).replace(f'"{MARK}"', wrong))
                assert len(str(caught.value)) < 600
                assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: type(chosen).__name__)
def test_what_is_missing_or_unknown_is_refused(chosen: Chosen, tmp_path: Path) -> None:
    path, tree = tmp_path / "chosen.json", asdict(chosen)  # type: ignore[call-overload]
    for name in tree:
        with pytest.raises(CheckpointError, match=f"no '{name}'"):
            read(type(chosen), path, json.dumps({key: value for key, value in tree.items() if key != name}))
    for text in (json.dumps({**tree, "other": 1}), "[]", "3", "null", "", json.dumps(tree)[:-1]):
        with pytest.raises(CheckpointError, match=r"chosen\.json"):
            read(type(chosen), path, text)


@pytest.mark.parametrize(
    ("kind", "changes", "found"),
    [
        (Choice, {"weight": -0.5}, "weight -0.5"),
        (Choice, {"margin": -0.5}, "margin -0.5"),
        (Choice, {"least": 0.0}, "least 0.0"),
        (Choice, {"power": -1.5}, "power -1.5"),
        (Choice, {"weights": [1.0]}, "weights [1.0]"),
        (Choice, {"race": RACE[:3]}, "without some of its pairs"),
        (Choice, {"race": [*RACE[:3], RACE[3][:2]]}, "race [["),
        (Choice, {"after": {}}, "metrics recall@5, ndcg@5 before"),
        (UserWeights, {"weights": [1.0]}, "weights [1.0]"),
        (UserWeights, {"before": {"recall@5": 0.1}}, "metrics recall@5 before and recall@5, ndcg@5 after"),
        (SessionWeights, {"after": {}}, "metrics recall@5, ndcg@5 before"),
        (SessionWeights, {"known_weights": [1.0]}, "weights [1.0] by 7 places"),
        (SessionWeights, {"known_places": 0}, "by 0 places"),
        (SessionWeights, {"known_after": {}}, "metrics recall@5, ndcg@5 before"),
        (Probe, {"after": {}}, "metrics recall@5, ndcg@5 before"),
        (Trial, {"weight": 0.75}, "weight 0.75"),
        (Trial, {"units": 16}, "16 units, weight 0.5"),
        (Trial, {"weight": -0.5, "race": [[8.0, -0.5, 0.0, 0.0]]}, "weight -0.5"),
        (Trial, {"race": []}, "weight 0.5, race []"),
        (Trial, {"race": [[8.0, 0.5, 0.0]]}, "list index"),
        (Trial, {"race": [[8.0, 0.5, 0.0, 0.1, 0.1]]}, "weight 0.5"),
        (Trial, {"race": [[8.0, 0.5, 0.0, -0.1]]}, "weight 0.5"),
        (Trial, {"race": [[8.0, 0.5, 0.0, 0.1], [-1.0, 0.5, 0.0, 0.1]]}, "weight 0.5"),
        (Trial, {"weight": -0.5, "because": "no data"}, "weight -0.5"),
    ],
)
def test_what_does_not_go_together_is_refused(
    kind: type[Chosen], changes: dict[str, Any], found: str, tmp_path: Path
) -> None:
    chosen: Any = next(one for one in CHOSEN if isinstance(one, kind))
    replace(chosen, **changes).write(tmp_path / "chosen.json")
    with pytest.raises(CheckpointError, match=f"Found: .*{re.escape(found)}") as caught:
        kind.read(tmp_path / "chosen.json")
    assert kind.what in str(caught.value)


def test_what_is_of_another_run_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path, rooms(400, 40))
    run = trained("recommender", tmp_path, "run", width=2, holdout=0.0)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "By default the network has 2 units and there is no direct term" in page
    for name, other in (("trial.json", Trial(2, 0.75, "elsewhere")), ("probe.json", Probe(500, "elsewhere"))):
        path = run.folder.path / name
        whole = path.read_bytes()
        other.write(path)
        with pytest.raises(CheckpointError, match=rf"{name} should hold .* is 0\. Found .*of another run"):
            write_report(tmp_path / "run")
        path.write_bytes(whole)
    assert write_report(tmp_path / "run").read_text(encoding="utf-8") == page
