"""Documents with labels: XC text, labelled text, tf-idf, test files against training files, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.packing import PACK

from widehead.data import LabelSchema, MultiLabel, TextFeatures, Vocabulary, read_multilabel
from widehead.errors import DataError

XC = "3 5 4\n0,2 1:0.5 4:2\n 3:1.5\n3\n"
TEXT = "red blue\tThe cat sat. The cat!\nblue\tA dog sat\n\tthe dog\n"


def read(folder: Path, text: str | bytes, **options: Any) -> MultiLabel:
    path = folder / "documents"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_multilabel(path, **options)


def refusal(folder: Path, text: str | bytes, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder / "documents"))


def lines(folder: Path, *names: str) -> Path:
    path = folder / "labels.txt"
    path.write_text("".join(name + "\n" for name in names))
    return path


@pytest.mark.parametrize("packing", PACK)
def test_xc_text(tmp_path: Path, packing: str) -> None:
    found = read(tmp_path, PACK[packing](XC.encode()))
    assert found.features.toarray().tolist() == [[0, 0.5, 0, 0, 2], [0, 0, 0, 1.5, 0], [0, 0, 0, 0, 0]]
    assert found.labels.toarray().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert found.features.dtype == found.labels.dtype == np.float32
    assert found.unreachable.tolist() == [0, 0, 0]
    assert (found.schema.num_features, found.schema.num_labels) == (5, 4)
    assert found.schema.name(2) == "2"


def test_xc_text_repeats_blank_ends_and_names(tmp_path: Path) -> None:
    text = "\n2 3 2\r\n1,1 0:1 0:2 2:1e-3\r\n0 1:-1\r\n\n \n"
    found = read(tmp_path, text, labels_path=lines(tmp_path, "zero", "one"))
    assert found.labels.toarray().tolist() == [[0, 1], [1, 0]]
    assert found.features.toarray() == pytest.approx(np.array([[3, 0, 1e-3], [0, -1, 0]]))
    assert found.schema.name(1) == "one"
    assert found.labels.has_canonical_format


def test_a_blank_line_within_the_promised_rows_is_a_row(tmp_path: Path) -> None:
    found = read(tmp_path, "3 2 2\n\n0 1:1\n\n")
    assert np.diff(found.labels.indptr).tolist() == [0, 1, 0]


def test_xc_test_file_counts_labels_beyond_the_training_file(tmp_path: Path) -> None:
    train = read(tmp_path, XC)
    test = read(tmp_path, "2 5 9\n3,4,8,8 0:1\n1 0:1\n", schema=train.schema)
    assert test.labels.toarray().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    assert test.unreachable.tolist() == [2, 0]
    assert test.schema is train.schema


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2 5 4\n0 1:1\n", ": expected 2 rows, as the header says. Found 1."),
        ("1 5 4\n0 1:1\n1 1:1\n", ", line 3: expected 1 rows, as the header says. Found more."),
        ("1 5 4\n4 1:1\n", ", line 2: expected a label id in [0, 4). Found '4'."),
        ("1 5 4\n-1 1:1\n", ", line 2: expected a label id in [0, 4). Found '-1'."),
        ("1 5 4\n0,,1 1:1\n", ", line 2: expected a label id in [0, 4). Found ''."),
        ("\n1 5 4\n0,x 1:1\n", ", line 3: expected a label id in [0, 4). Found 'x'."),
        ("1 5 4\n1:1 2:1\n", ", line 2: expected a label id in [0, 4). Found '1:1'."),
        ("1 5 4\n0 5:1\n", ", line 2: expected a feature id in [0, 5). Found '5'."),
        ("1 5 4\n0 1.5:1\n", ", line 2: expected a feature id in [0, 5). Found '1.5'."),
        ("1 5 4\n0 " + "9" * 5000 + ":1\n", ", line 2: expected a feature id in [0, 5). Found '9999"),
        ("1 5 4\n0 1\n", ", line 2: expected feature:value. Found '1'."),
        ("1 5 4\n0 1:nan\n", ", line 2: expected a finite value of a feature. Found 'nan'."),
        ("1 5 4\n0 1:1e99\n", ", line 2: expected a finite value of a feature. Found '1e99'."),
        ("1 5 4\n0 1:2:3\n", ", line 2: expected a finite value of a feature. Found '2:3'."),
        ("1 5 4\n0 1:1_0\n", ", line 2: expected numbers. Found '_'."),
        ("0 5 4\n", ", line 1: expected 'rows features labels', each at least 1"),
        (
            "1 5 99999999999\n0 1:1\n",
            ", line 1: expected 'rows features labels', each at least 1 and the last two at most",
        ),
        (
            "just text\n",
            ", line 1: expected the header 'rows features labels' of XC text, or a line 'label label<tab>text'.",
        ),
        ("a\tb\nno tab\n", ", line 2: expected 'label label<tab>text'. Found no tab."),
        ("\ttext alone\n", ": expected labels. Found none."),
        ("label\t...\n", ": expected texts after the tabs. Found no word."),
        ("\n\n", ", line 3: expected the header"),
        ("d1\tsport news\tball goal\nd2\tnews\tvote\n", ": expected one tab a line, 'label label<tab>text'. Found two"),
        ("label\ttext\na\tb\n", ", line 1: expected 'label label<tab>text'. Found a header"),
        ("Title\tCategory\nb c\ta\n", ", line 1: expected 'label label<tab>text'. Found a header"),
        ("id\tlabels\ttext\n1\ta\tb\n", ", line 1: expected 'label label<tab>text'. Found a header"),
        ("", ": the file is empty."),
        (b"1 5 4\n0 1:1\0\n", ", line 2: expected a text file. Found a zero byte"),
    ],
)
def test_refusals_name_the_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_promise_of_very_many_labels_costs_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, f"1 {2**31 - 1} {2**31 - 1}\n7,{2**31 - 2} 1:1 {2**31 - 2}:1\n")
    assert found.labels.shape == (1, 2**31 - 1)
    assert found.labels.indices.tolist() == [7, 2**31 - 2]


def test_files_of_different_kinds_do_not_fit(tmp_path: Path) -> None:
    xc, text = read(tmp_path, XC).schema, read(tmp_path, TEXT).schema
    assert "expected 5 features, as in the training file. Found XC text of 6" in refusal(
        tmp_path, "1 6 4\n0\n", schema=xc
    )
    assert "expected label<tab>text, as in the training file" in refusal(tmp_path, XC, schema=text)
    assert "expected XC text, as the training file is" in refusal(tmp_path, TEXT, schema=xc)


def test_labelled_text(tmp_path: Path) -> None:
    found = read(tmp_path, TEXT, minimum_documents=1)
    assert found.schema.keys is not None
    assert found.schema.keys.names == ["blue", "red"]
    assert found.labels.toarray().tolist() == [[1, 1], [1, 0], [0, 0]]
    assert found.schema.text is not None
    assert found.schema.text.words.names == ["dog", "sat", "the", "a", "cat"]  # by documents, then by name
    idf = {1: 1 + math.log(4 / 2), 2: 1 + math.log(4 / 3)}
    first = {"cat": (1 + math.log(2)) * idf[1], "sat": idf[2], "the": (1 + math.log(2)) * idf[2]}
    norm = math.sqrt(sum(v * v for v in first.values()))
    row = dict(zip(found.schema.text.words, found.features.toarray()[0], strict=True))
    assert row == pytest.approx({**{w: v / norm for w, v in first.items()}, "dog": 0.0, "a": 0.0})
    assert np.sqrt(found.features.multiply(found.features).sum(axis=1)) == pytest.approx(1.0)


def test_rare_words_and_too_many_words_are_left_out(tmp_path: Path) -> None:
    def words(**options: int) -> list[str]:
        schema = read(tmp_path, TEXT, **options).schema
        assert schema.text is not None
        return schema.text.words.names

    assert words(minimum_documents=2) == ["dog", "sat", "the"]
    assert words(minimum_documents=1, max_features=2) == ["dog", "sat"]
    assert words(minimum_documents=9) == ["dog", "sat", "the", "a", "cat"]  # rather than none


def test_labelled_test_file_against_its_training_file(tmp_path: Path) -> None:
    train = read(tmp_path, TEXT)
    test = read(tmp_path, "\nred green pink green\tthe zebra\nblue\tzebra\n", schema=train.schema)
    assert test.labels.toarray().tolist() == [[0, 1], [1, 0]]
    assert test.unreachable.tolist() == [2, 0]
    assert test.features.toarray() == pytest.approx(np.array([[0, 0, 1], [0, 0, 0]]))
    again = read(tmp_path, TEXT, schema=train.schema)
    assert again.features.toarray() == pytest.approx(train.features.toarray())


def test_numbered_labels_and_their_names(tmp_path: Path) -> None:
    text = "10 2\tsome words\n0 2\tmore words\n"
    names = lines(tmp_path, *(f"name {i}" for i in range(11)))
    found = read(tmp_path, text, labels_path=names)
    assert found.schema.keys is not None
    assert found.schema.keys.names == ["0", "2", "10"]
    assert [found.schema.name(i) for i in range(3)] == ["name 0", "name 2", "name 10"]
    assert read(tmp_path, text).schema.name(2) == "10"


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    two = lines(tmp_path, "zero", "one")
    assert "labels.txt: expected 4 lines, one for each label. Found 2." in refusal(tmp_path, XC, labels_path=two)
    for label in ("2", "x", "-1", "²"):
        message = refusal(tmp_path, f"{label}\twords\n", labels_path=two)
        assert "expected labels to be numbers of lines of" in message
        assert f"from 0 to 1. Found the label {label!r}." in message
    assert "there is no such file" in refusal(tmp_path, XC, labels_path=tmp_path / "none")


def test_a_schema_survives_json(tmp_path: Path) -> None:
    names = lines(tmp_path, "zero", "one", "two", "three")
    for found in (read(tmp_path, XC, labels_path=names), read(tmp_path, TEXT), read(tmp_path, XC)):
        saved = json.loads(json.dumps(found.schema.to_dict()))
        again = LabelSchema.from_dict(saved)
        assert again.to_dict() == found.schema.to_dict()
        assert [again.name(i) for i in range(again.num_labels)] == [
            found.schema.name(i) for i in range(found.schema.num_labels)
        ]
    text = LabelSchema.from_dict(json.loads(json.dumps(read(tmp_path, TEXT).schema.to_dict())))
    assert np.array_equal(
        read(tmp_path, TEXT, schema=text).features.toarray(),
        read(tmp_path, TEXT, schema=read(tmp_path, TEXT).schema).features.toarray(),
    )


def test_features_of_many_texts_are_those_of_each_alone() -> None:
    texts = [f"word{i % 50} word{i % 7} common {'x' * (i % 3)}" for i in range(45_000)]
    features, table = TextFeatures.fit(texts)
    assert table.shape == (45_000, len(features.words))
    sample = [0, 19_999, 20_000, 44_999]
    assert features.transform([texts[i] for i in sample]).toarray() == pytest.approx(table[sample].toarray())
    assert features.transform([]).shape == (0, len(features.words))


def test_idf_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match=r"`idf` should have shape \(1,\)"):
        TextFeatures(Vocabulary(["a"]), np.ones(2))


@pytest.mark.parametrize(
    "text",
    [
        "ball goal\t<http://x/sport>\nhen cow\t<http://x/farm>\nball cat\t<http://x/sport>\n",
        "d1\tball goal\nd2\tball hen\n",
        "a b c d e f\tx\n" * 3 + "a b c d e f\ty\n" * 3,
    ],
)
def test_columns_the_other_way_round_and_ids_are_doubted(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text, minimum_documents=1).doubt.endswith(("are they the text?", "or ids?"))


def test_what_was_read_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, "red blue\tcat dog\nblue\tdog\twhite\nred\tcat\n", minimum_documents=1)
    assert str(found) == (
        "3 documents, 3 words, 2 labels, 4 of them on documents; first labels blue, red; first words cat, dog, white"
    )
    assert str(read(tmp_path, XC)).startswith(
        "3 documents, 5 features, 4 labels, 3 of them on documents; first labels 0"
    )


def test_a_second_tab_on_some_lines_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a\tx\ty\nb\tz\n", minimum_documents=1).schema.num_features == 3
