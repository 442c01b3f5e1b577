"""The cache of machine code follows the sources' content, not their dates."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numba

from moesim import compiled


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
    command = "from moesim.compiled import cache_folder; print(cache_folder())"
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, check=True)
    folder = Path(done.stdout.strip())
    assert folder.name.startswith(compiled.PREFIX)
    assert [path for path in folder.parent.glob(f"{compiled.PREFIX}*") if path != folder] == []


def test_a_demo_before_anything_is_compiled_says_the_same_to_the_bit(tmp_path: Path) -> None:
    said = {}
    for kernels in (compiled.PYTHON, compiled.COMPILED):
        command = [sys.executable, "-m", "moesim", "run", "demo-tiny", "--out", kernels]
        subprocess.run(
            command, cwd=tmp_path, env={**os.environ, compiled.KERNELS: kernels}, check=True, capture_output=True
        )
        said[kernels] = (tmp_path / kernels / "result.json").read_bytes()
    assert said[compiled.PYTHON] == said[compiled.COMPILED]


def test_the_first_demo_compiles_nothing(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != compiled.KERNELS}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    command = [sys.executable, "-m", "moesim", "run", "--demo"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "stored in" in done.stdout and "RuntimeWarning" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_kernels_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    environment = {**os.environ, compiled.KERNELS: "jitted"}
    command = [sys.executable, "-m", "moesim", "run", "demo-tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "MOESIM_KERNELS" in done.stderr and "compiled" in done.stderr
