"""The cache of machine code follows the sources' content, not their dates."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numba

from moesim.network import compiled


def test_the_digest_sees_content_and_not_dates(tmp_path: Path) -> None:
    file = tmp_path / "kernel.py"
    file.write_text("a = 1\n")
    before = compiled.digest([file])
    os.utime(file, (0, 0))
    assert compiled.digest([file]) == before
    file.write_text("a = 2\n")
    os.utime(file, (0, 0))
    assert compiled.digest([file]) != before


def test_functions_are_kept_in_that_folder_and_numba_s_own_setting_stays() -> None:
    importlib.import_module("moesim.network.fluid")
    assert os.environ.get("NUMBA_CACHE_DIR", "") == numba.config.CACHE_DIR


def test_without_a_setting_the_package_s_own_cache_holds_one_folder() -> None:
    command = "from moesim.network.compiled import cache_folder; print(cache_folder())"
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, check=True)
    folder = Path(done.stdout.strip())
    assert folder.name.startswith(compiled.PREFIX)
    assert [path for path in folder.parent.glob(f"{compiled.PREFIX}*") if path != folder] == []
