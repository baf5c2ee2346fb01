"""Globs: brackets are patterns, and names of folders that are there."""

import os
from pathlib import Path

from polyamp import corpus, globs
from polyamp.data import places, records
from polyamp.predict import expand_audio


def test_folders_may_have_brackets_in_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a [live]/1.wav", "a [live]/2.wav", "a l/1.wav", "b [x]/deep/3.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    both = [os.path.join("a [live]", "1.wav"), os.path.join("a [live]", "2.wav")]
    assert globs.matching("a [live]/2*") == both[1:]
    assert globs.matching("a [live]/*.wav") == [os.path.join("a l", "1.wav")]  # What a glob says comes first.
    assert globs.matching("a [lx]/[12].wav") == [os.path.join("a l", "1.wav")]
    assert globs.matching("c [live]/*") == globs.matching("a [live]/3*") == []
    assert globs.matching("**/3.wav") == [os.path.join("b [x]", "deep", "3.wav")]
    assert expand_audio("a [live]/2*.wav") == ([Path(both[1])], [])
    deep = os.path.join("b [x]", "deep", "3.wav")
    assert places.matching("b [x]/*") == []
    assert places.matching("b [x]/*/*") == places.matching("b [x]/**/*.wav") == places.matching("b [x]/deep/*") == [deep]
    assert globs.literal_folder("b [x]/deep/*") == "b [x]/deep/" and globs.literal_folder("*") == ""
    jobs = corpus.plan(["b [x]/**/*.wav", "a [live]/*.wav"], "out")
    assert [job.output for job in jobs] == [os.path.join("out", "a l", "1"), os.path.join("out", "deep", "3")]
    assert jobs[0].audio == os.path.join("a l", "1.wav")
    assert records.expand_paths("a [live]/2*") == both[1:]


def test_lists_of_failures_are_no_examples(tmp_path):
    for name in ("train.tfrecord-00000-of-00001", "train.failed.jsonl"):
        (tmp_path / name).touch()
    assert records.expand_paths(f"{tmp_path}/train*") == [str(tmp_path / "train.tfrecord-00000-of-00001")]
