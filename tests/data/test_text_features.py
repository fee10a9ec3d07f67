"""Weights of words against scikit-learn's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from widehead.data.text_features import TextFeatures

TEXTS = st.lists(st.lists(st.sampled_from(["ant", "bee", "cow", "dog", "eel"]), max_size=30), min_size=1, max_size=12)


@given(train=TEXTS.filter(any), others=TEXTS)
def test_weights_are_those_of_scikit_learn(train: list[list[str]], others: list[list[str]]) -> None:
    """Texts of no words and of known words alone, words again and again, one text, one word."""
    texts, more = ([" ".join(words) for words in part] for part in (train, others))
    features, fitted = TextFeatures.fit(texts, minimum=1)
    counts = CountVectorizer(vocabulary=features.words.names)
    weights = TfidfTransformer(sublinear_tf=True).fit(counts.transform(texts))
    for found, given_texts in ((fitted, texts), (features.transform(more), more)):
        expected = weights.transform(counts.transform(given_texts)).toarray()
        np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5, atol=1e-7)
