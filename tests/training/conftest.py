"""Fixtures of the tests of training."""

import pytest

from tests.training.helpers import alignments, prepare, record, write_parts, write_tone_pool


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """Folders of a tiny encoder, a tiny lexicon and a tokenizer of bytes; see `write_parts`."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


@pytest.fixture(scope="session")
def tone_pool(tmp_path_factory):
    """A pool of 36 utterances, see `write_tone_pool`."""
    folder = tmp_path_factory.mktemp("pools") / "tones"
    write_tone_pool(folder, 36)
    return folder


@pytest.fixture
def prepared(parts, tmp_path):
    """Three recorded conversations, prepared; of one the agent's side is not known."""
    lines = [record(tmp_path, name, {"alignments": alignments()}) for name in ("a", "b")]
    lines.append(record(tmp_path, "heard", {"text": "hi you and"}))
    assert prepare(parts, tmp_path, lines) == 0
    return tmp_path / "prepared"
