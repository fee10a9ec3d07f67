"""Words of every script: marks and joiners belong to them, and texts that Unicode calls equal give the same ones."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import END, Vocabulary, count_words, encode, read_multilabel
from widehead.data.text import words_of

MARKS = st.characters(categories=["Mn", "Mc", "Me"])
LETTERS = st.characters(categories=["Lu", "Ll", "Lt", "Lm", "Lo", "Nd"])
# What words are made of, what stands between them, and what changes when it is composed or put in lower case.
HARD = st.text(
    st.one_of(
        st.sampled_from("aIiİJΑΣςσ'’._ \n\u0301\u0307\u030c\u0323\u0345\u200c\u200d\u200b\u00ad\u200f\u055e\u05f3"),
        st.sampled_from("각가\u1e9bℵÅ\u0344\u2126\ufb2a\U0001d15e\U0001f600\U0001e944𞤀\ufe0f"),
        LETTERS,
        MARKS,
        st.characters(),
    ),
    max_size=12,
)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def slow_words(text: str) -> list[str]:
    """The rule, a character at a time."""
    left_out = [c for c in text if not (c in "\u055b\u055c\u055e" or is_format(c))]
    words, open_word = [], False
    for c in nfc("".join(left_out)):
        begins = c.isalnum()
        if begins or (open_word and (unicodedata.category(c)[0] == "M" or c in JOINERS or is_sign(c))):
            words = [*words, c] if not open_word else [*words[:-1], words[-1] + c]
            open_word = True
        else:
            open_word = False
    return [nfc(word.replace("İ", "i").lower()) for word in words]


JOINERS = "\u180e\u200c\u200d"
SIGNS = re.compile("[\u02c2-\u02c5\u02d2-\u02d7\u02de\u02df\u02e5-\u02ff\u05f3\ua700-\ua721\ua789\ua78a\uab5b]")


def is_format(c: str) -> bool:
    return unicodedata.category(c) == "Cf" and c not in JOINERS + "\u200b"


def is_sign(c: str) -> bool:
    return SIGNS.fullmatch(c) is not None


@given(text=HARD)
def test_the_rule_a_character_at_a_time(text: str) -> None:
    assert words_of(text) == slow_words(text)


@given(text=HARD)
def test_equal_texts_give_equal_words(text: str) -> None:
    words = words_of(text)
    for form in ("NFC", "NFD"):
        assert words_of(unicodedata.normalize(form, text)) == words


@given(text=HARD)
def test_words_are_composed_and_are_words(text: str) -> None:
    words = words_of(text)
    assert [nfc(word) for word in words] == words
    assert words_of(" ".join(words)) == words
    assert words_of(text, lowercase=False) == [nfc(word) for word in words_of(text, lowercase=False)]


@given(before=LETTERS, marks=st.text(MARKS, min_size=1, max_size=3), after=LETTERS)
def test_marks_are_not_lost_and_do_not_split(before: str, marks: str, after: str) -> None:
    (word,) = words_of(before + marks + after, lowercase=False)
    assert word == nfc(before + marks + after)
    assert words_of(before + marks) == [words_of(before + marks + " " + after)[0]]


@given(word=st.text(LETTERS, min_size=1, max_size=6))
def test_lower_case_has_a_letter_for_a_letter(word: str) -> None:
    (kept,), (lowered,) = words_of(word, lowercase=False), words_of(word)
    assert len(nfc(lowered)) == len(nfc(kept))
    assert words_of(lowered) == [lowered]


@pytest.mark.parametrize(
    "word",
    [
        "हिन्दी",
        "ক্ষুদ্র",
        "தமிழ்",
        "ภาษาไทย",
        "ភាសាខ្មែរ",
        "မြန်မာ",
        "བོད་".removesuffix("་"),
        "ދިވެހި",
        "אִמָּא",
        "ג׳ירפה",
        "مُحَمَّد",
        "می‌خواهم",
        "ශ්‍රී",
        "അവന്‍",
        "ᠮᠣᠩᠭᠣᠯ᠎ᠠ",
        "𞤆𞤵𞤤𞤢𞥄𞤪".lower(),
        "𑄌𑄋𑄴𑄟𑄳𑄦",
        "漢字かな",
        "葛\U000e0100",
        "sa\u0331\u0301m",
        "kɔ˦˥",
    ],
)
def test_words_of_many_scripts_are_whole(word: str) -> None:
    assert words_of(f"({word}), {word}\n{unicodedata.normalize('NFD', word)}") == [nfc(word)] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe\u0301 café", ["café"] * 2),
        ("\u1112\u1161\u11ab 한", ["한"] * 2),
        ("co\u00adope\u2060ra\ufefftion \u200fcooperation\u200e", ["cooperation"] * 2),
        ("İSTANBUL I\u0307stanbul istanbul", ["istanbul"] * 3),
        ("ΟΔΟΣ, ΟΔΟΣ'Α οδος", ["οδος", "οδος", "α", "οδος"]),
        ("Straße STRASSE", ["straße", "strasse"]),
        ("J\u030cx ǰX", ["ǰx"] * 2),
        ("ինչո՞ւ ինչու", ["ինչու"] * 2),
        ("ភាសា\u200bខ្មែរ", ["ភាសា", "ខ្មែរ"]),
        ("❤\ufe0fgood 👩\u200d🚀day", ["good", "day"]),
        ("it's it’s a_b ä_ö 3.14 x-y", ["it", "s", "it", "s", "a", "b", "ä", "ö", "3", "14", "x", "y"]),
        ("\u0301a \u0301", ["a"]),
    ],
)
def test_where_words_end(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_all_jobs_on_text_have_the_same_words(tmp_path: Path) -> None:
    text, words = "हिन्दी cafe\u0301 CO\u00adOP", ["café", "coop", "हिन्दी"]
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "labelled.txt").write_text(f"a\t{text}\nb\tcoop café हिन्दी\n")
    assert sorted(count_words(tmp_path / "plain.txt").keys() - {END}) == words
    vocabulary = Vocabulary([END, *words])
    assert encode(tmp_path / "plain.txt", vocabulary).tolist() == [3, 1, 2, 0]
    read = read_multilabel(tmp_path / "labelled.txt")
    assert read.schema.text is not None
    assert sorted(read.schema.text.words) == words
    assert read.features[0].toarray() == pytest.approx(read.features[1].toarray())


def test_a_block_of_markers_alone_has_no_line_ends(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("<doc a>\n" * 200_000 + "\na b")
    assert count_words(tmp_path / "text", "whitespace") == {"a": 1, "b": 1, END: 2}
