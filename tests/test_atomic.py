"""Files are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moesim import atomic
from moesim.errors import BadInput, TryAgain


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result.json"
    atomic.write(target, "one")
    atomic.write(target, b"two")
    assert target.read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "result.json"
    atomic.write(target, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TryAgain, match="No space left"):
        atomic.write(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_path_through_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        atomic.write(tmp_path / "file" / "result.json", "text")


def test_a_pipe_or_a_device_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(BadInput, match="is a device or a pipe"):
        atomic.write(pipe, "page")
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "run"
    for names in (("a", "b"), ("b", "c")):
        with atomic.folder(target) as part:
            for name in names:
                (part / name).write_text(name)
    assert sorted(one.name for one in target.iterdir()) == ["b", "c"]
    with pytest.raises(ZeroDivisionError), atomic.folder(target) as part:
        (part / "d").write_text(str(1 / 0))
    assert sorted(one.name for one in target.iterdir()) == ["b", "c"]
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_temporaries_of_dead_writers_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    target, dead = tmp_path / "result.json", tmp_path / ".result.json.0123456789abcdef.part"
    dead.write_text("torn")
    os.utime(dead, (0, 0))
    with atomic.file(target) as living:
        os.utime(living, (0, 0))
        atomic.write(target, "other")
        assert living.exists() and not dead.exists()
        living.write_text("last")
    assert target.read_text() == "last" and [one.name for one in tmp_path.iterdir()] == ["result.json"]


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123456789abcdef")
    (tmp_path / ".result.json.0123456789abcdef.part").symlink_to(victim)
    with pytest.raises(BadInput):
        atomic.write(tmp_path / "result.json", "theirs")
    assert victim.read_text() == "mine"
