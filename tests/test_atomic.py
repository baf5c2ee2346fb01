import os

import pytest

from polyamp import atomic
from polyamp.errors import PolyampError


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "notes.mid"
    with atomic.replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".mid" and not path.exists()
        temporary.write_text("all of it")
    assert path.read_text() == "all of it" and os.listdir(tmp_path) == ["notes.mid"]


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_of_the_system_names_the_file(tmp_path):
    with pytest.raises(PolyampError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        with atomic.replacing(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")


def test_a_link_stays(tmp_path):
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("old")
    link.symlink_to(there)
    atomic.write_text(link, "new ♪")
    assert link.is_symlink() and there.read_text(encoding="utf-8") == "new ♪"


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".mid")
    atomic.check_replaceable(path)
    atomic.write_text(path, "notes")
    assert path.read_text() == "notes"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(tmp_path, make):
    make(tmp_path / "a")
    for write in (atomic.check_replaceable, lambda path: atomic.write_text(path, "")):
        with pytest.raises(PolyampError, match="a: cannot be written .it is"):
            write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_not_there_is_known_before(tmp_path):
    for path in (tmp_path / "none" / "a.mid", tmp_path / "file" / "a.mid"):
        (tmp_path / "file").touch()
        with pytest.raises(PolyampError, match=r"a\.mid: cannot be written"):
            atomic.check_replaceable(path)
        with pytest.raises(PolyampError, match="choose another --output_dir"):
            atomic.check_folder(path.parent, "--output_dir")


def test_folders_are_made_with_those_they_lie_in(tmp_path):
    assert atomic.make_folder(tmp_path / "a" / "b").is_dir()
    atomic.check_folder(atomic.make_folder(tmp_path / "a" / "b"))
    (tmp_path / "file").touch()
    with pytest.raises(PolyampError, match="file: cannot be made a folder .*; choose another --cache_dir"):
        atomic.make_folder(tmp_path / "file", "--cache_dir")
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "models" / "mean"
    with atomic.new_folder(path) as unfinished:
        (unfinished / "weights").write_text("1")
        assert not path.exists() and unfinished.name.startswith(".")
    assert (path / "weights").read_text() == "1" and os.listdir(path.parent) == ["mean"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, PolyampError, OSError])
def test_a_folder_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(PolyampError if error is OSError else error), atomic.new_folder(tmp_path / "mean") as unfinished:
        (unfinished / "weights").write_text("1")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path):
    (tmp_path / "cache").mkdir()
    with atomic.new_folder(tmp_path / "cache") as unfinished:  # An empty one is.
        (unfinished / "index").write_text("1")
    with pytest.raises(PolyampError, match="cache: cannot be written .*; choose another --cache_dir"):
        with atomic.new_folder(tmp_path / "cache", "--cache_dir") as unfinished:
            (unfinished / "index").write_text("2")
    assert (tmp_path / "cache" / "index").read_text() == "1" and os.listdir(tmp_path) == ["cache"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    kept = ["ckpt-00000001.npz", ".hidden", ".0123456789ab.tmp.npz", ".notes.tmp", ".cache"]
    for name in [*kept, ".ba9876543210.tmp.mid"]:
        (tmp_path / name).touch()
    for name in (".ccccccccccc1.tmp", ".ccccccccccc2.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "raw").touch()
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    os.utime(tmp_path / ".0123456789ab.tmp.npz")  # Of processes that are at work.
    os.utime(tmp_path / ".ccccccccccc2.tmp" / "raw")
    atomic.remove_abandoned(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, ".ccccccccccc2.tmp"])
    atomic.remove_abandoned(tmp_path / "none")
