"""The report: everything of a run is in it, nothing of it can run, it asks nothing of the network."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from widehead.errors import CheckpointError
from widehead.jobs import configure
from widehead.report import Table, write_report
from widehead.report.curves import curves_of, draw
from widehead.report.tables import duration, number
from widehead.training import RunFolder

EVIL = "<script>alert('x')</script>"


def made_run(folder: Path, records: list[dict[str, Any]], **options: Any) -> Path:
    decided = {"width": 32, "batch_size": 512, "neighbours": 0, "direct": 0.0}
    config = configure("recommender", train=f"/data/{EVIL}.txt", out=str(folder), **decided, **options)
    made = RunFolder.create(config)
    made.metrics_path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def train_record(step: int, **changes: Any) -> dict[str, Any]:
    figures = {"loss": 5.0 / step, "examples_per_second": 900.0, "head_share": 0.4, "head_lr": 0.1, "encoder_lr": 1e-3}
    return {"kind": "train", "step": step, "epoch": step / 10, "seconds": step * 1.5, **figures, **changes}


def evaluation(step: int, **metrics: float | None) -> dict[str, Any]:
    named = {name.replace("_at_", "@"): value for name, value in metrics.items()}
    return {"kind": "evaluation", "step": step, "epoch": step / 10, "seconds": step * 1.5, **named}


RECORDS = [
    train_record(10),
    evaluation(10, recall_at_20=0.1, ndcg_at_20=0.08),
    train_record(20),
    evaluation(20, recall_at_20=0.21, ndcg_at_20=0.15),
]


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(run: Path, **more: Any) -> Page:
    assert write_report(run, **more) == run / "report.html"
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_what_is_in_it(tmp_path: Path) -> None:
    run = made_run(tmp_path / "my run", RECORDS, hidden=(12, 7))
    comparisons = {"popularity": {"recall@20": 0.04, "ndcg@20": 0.02}}
    tables = [Table("Examples", ["user", "items"], [["alice", "a, b"]], "Held out.")]
    page = page_of(run, comparisons=comparisons, tables=tables)
    for text in (
        "my run",
        "A recommender",
        "0.21",
        "popularity",
        "0.04",
        "alice",
        "Held out.",
        "12, 7",
        "30.0 seconds",
    ):
        assert text in page.text
    for title in ("Training loss", "Ranking metrics", "Examples per second", "Head's share of the time"):
        assert title in page.text
    assert "2 epochs in 20 steps" in page.text


def test_pictures_are_inside_and_have_words(tmp_path: Path) -> None:
    page = page_of(made_run(tmp_path / "run", RECORDS))
    pictures = page.of("img")
    assert len(pictures) == len(page.of("source")) == 5
    assert pictures[0]["alt"] == "Training loss against step: loss goes from 0.5 to 0.25."
    for attributes in [*pictures, *page.of("source")]:
        uri = attributes.get("src") or attributes.get("srcset")
        assert uri is not None
        kind, data = uri.split(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data).rstrip().endswith(b"</svg>")


def test_it_asks_nothing_of_the_network(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", RECORDS)
    page = page_of(run)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    places = [a[name] for _, a in page.tags for name in ("src", "href", "srcset") if a.get(name)]
    assert all(str(place).startswith("data:") for place in places)
    assert not re.search(r"url\(|@import", (run / "report.html").read_text())


def test_text_of_data_is_text(tmp_path: Path) -> None:
    run = made_run(tmp_path / EVIL.replace("/", "∕"), [*RECORDS, evaluation(30, **{f"recall@20{EVIL}": 0.3})])
    tables = [Table(EVIL, [EVIL], [[EVIL]], EVIL)]
    page = page_of(run, comparisons={EVIL: {"recall@20": 0.1}}, tables=tables)
    assert not page.of("script")
    assert page.text.count(EVIL) >= 6


def test_attributes_cannot_be_left(tmp_path: Path) -> None:
    page = page_of(made_run(tmp_path / "run", [evaluation(1, **{'"onload="alert(1)': 0.5})]))
    assert all(set(a) == {"src", "alt", "width", "height"} for a in page.of("img"))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [train_record(1)],
        [evaluation(1, perplexity=None)],
        [train_record(1, loss=None), evaluation(2, perplexity=1e300)],
        [evaluation(1, recall_at_1=0.1), evaluation(2, recall_at_5=0.2)],
        [evaluation(step, mean_rank=1e-300 * step) for step in range(1, 100)],
    ],
)
def test_runs_with_little_in_them(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    page_of(made_run(tmp_path / "run", records))


def test_metrics_of_other_scales_have_plots_of_their_own() -> None:
    records = [evaluation(s, perplexity=90.0, mean_rank=7.0, recall_at_1=0.1, recall_at_10=0.4) for s in (1, 2)]
    curves = curves_of(records, {"untrained": {"perplexity": 1000.0, "recall@1": 0.0}})
    assert [(curve.title, curve.x_label) for curve in curves][::2] == [
        ("Perplexity", "step"),
        ("Mean rank", "step"),
        ("Ranking metrics", "step"),
    ]
    assert list(curves[-1].lines) == ["recall@1", "recall@10"]
    assert curves[0].baselines == {"perplexity, untrained": 1000.0}
    assert curves[1].x == pytest.approx([0.025, 0.05])


def test_pictures_are_the_same_every_time() -> None:
    curve = curves_of(RECORDS)[0]
    assert draw(curve) == draw(curve)


def test_dark_pages_get_the_same_picture_in_other_colours() -> None:
    names = {f"recall_at_{k}": 0.1 for k in range(1, 9)}  # as many lines as there are colours
    metrics = next(curve for curve in curves_of([evaluation(1, **names)]) if len(curve.lines) == 8)
    picture = draw(replace(metrics, baselines={"popularity": 0.2}))
    light, dark = (base64.b64decode(uri.split(",")[1]).decode() for uri in (picture.light, picture.dark))
    colours = re.compile("#[0-9a-f]{6}")
    assert colours.sub("", light) == colours.sub("", dark)
    pairs = set(zip(colours.findall(light), colours.findall(dark), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 9
    assert all(luminance(a) < 0.5 < luminance(b) for a, b in pairs), pairs


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_writing_fails_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(tmp_path / "run", RECORDS)
    write_report(run)
    before = (run / "report.html").read_bytes()
    (run / "metrics.jsonl").write_text("no json\nat all\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 1"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        write_report(tmp_path / "nothing")


def test_tables_have_whole_rows() -> None:
    with pytest.raises(ValueError, match="should have 2 cells"):
        Table("t", ["a", "b"], [["only one"]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.000012345, "1.234e-05"),
        (999.96, "1000"),
        (12345.6, "12,346"),
        (float("nan"), "–"),
        (True, "–"),
        ("x", "–"),
    ],
)
def test_numbers(value: Any, shown: str) -> None:
    assert number(value) == shown


def test_durations() -> None:
    assert [duration(s) for s in (0.04, 59.9, 60, 3599, 7260)] == [
        "0.0 seconds",
        "59.9 seconds",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 1 min",
    ]
