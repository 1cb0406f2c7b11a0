"""Options that training programs share: how a pool is written, and what parts default to."""

import argparse

import pytest

from duplex.training.common.options import add_part, backbone_path, folder_share, pool_share
from duplex.weights import DEFAULT_AGENT


@pytest.mark.parametrize(
    ("text", "folder", "share"),
    [("a/b", "a/b", 1.0), ("a/b=0.25", "a/b", 0.25), ("a=b=2", "a=b", 2.0)],
)
def test_a_folder_may_have_a_share(text, folder, share):
    found, number = folder_share(text)
    assert (str(found), number) == (folder, share)


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path):
    (tmp_path / "x=0.5").mkdir()
    assert folder_share(str(tmp_path / "x=0.5")) == (tmp_path / "x=0.5", 1.0)


def test_a_share_is_a_number():
    with pytest.raises(argparse.ArgumentTypeError, match="FOLDER or FOLDER=SHARE, not 'a=much'"):
        folder_share("a=much")


def test_a_pool_has_an_index(tmp_path):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a speech pool"):
        pool_share(f"{tmp_path}=0.5")
    (tmp_path / "index.jsonl").write_text("")
    assert pool_share(f"{tmp_path}=0.5") == (tmp_path, 0.5)


def test_parts_default_to_the_shipped_agents():
    parser = argparse.ArgumentParser()
    for name in ("encoder", "lexicon", "lm", "talker", "codec"):
        add_part(parser, name)
    for name, folder in vars(parser.parse_args([])).items():
        assert folder == DEFAULT_AGENT / name and (folder / "model.safetensors").exists()


def test_a_backbone_that_is_given_is_not_fetched(tmp_path):
    assert backbone_path(tmp_path) == tmp_path
