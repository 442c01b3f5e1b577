"""`moesim`: the one place where failures become exit codes.

0 ok, 2 bad input, 3 does not fit, 4 target missed, 5 simulated deadlock, 70 a defect of moesim, 75 try again,
130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final, NoReturn

import click

from moesim.cli.options import COMPLETE
from moesim.cli.verbs import LazyGroup
from moesim.errors import BadInput, BrokenInvariant, MoesimError, printable, shortened
from moesim.version import __version__

TRACEBACK: Final = "MOESIM_TRACEBACK"
FULL: Final = {errno.ENOSPC, errno.EDQUOT}
PATHS: Final = {
    errno.ENOENT, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EEXIST,
    errno.EROFS, errno.ENXIO, errno.EINVAL,
}  # fmt: skip
EXTRA_OF: Final = {  # library -> extra that has it
    "torch": "torch", "transformers": "torch", "safetensors": "torch", "ray": "ray", "submitit": "slurm",
    "optuna": "search",
}  # fmt: skip


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="moesim")
def cli() -> None:
    """Simulate Mixture-of-Experts clusters by replaying recorded routing traces.

    Start with `moesim run --demo --report`.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _as_interrupt)
    sys.stdout, sys.stderr = (stream or io.StringIO() for stream in (sys.stdout, sys.stderr))  # None: closed by `>&-`
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no block characters still gets the numbers
    sys.stdout = Deaf(sys.stdout)
    sys.exit(guarded(lambda: dispatch(list(sys.argv[1:] if arguments is None else arguments))))


def guarded(command: Callable[[], int]) -> int:
    """The command's exit code; whatever it raises becomes one line on stderr and the code that belongs to it."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(TRACEBACK):
            raise
        message, code = explain_failure(error)
        with contextlib.suppress(BrokenPipeError):
            print(f"moesim: {printable(shortened(message))}", file=sys.stderr)
        return code


def explain_failure(error: BaseException) -> tuple[str, int]:
    """The line that is printed for an exception, and the exit code."""
    if isinstance(error, BrokenInvariant):
        return f"{error} (a defect of moesim; {TRACEBACK}=1 shows where)", error.exit_code
    if isinstance(error, MoesimError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", 130
    if isinstance(error, click.ClickException):
        return _usage(error), 2
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.strerror}. Try: free space, then the same command", 75
    if isinstance(error, OSError) and error.errno in PATHS:
        return f"{error.filename or 'a path'}: {error.strerror}. Try: another path", 2
    if isinstance(error, MemoryError):
        return "this asks for more memory than there is. Try: fewer tokens, requests or GPUs", 3
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
        return f"{error.name} is not installed. Try: pip install 'moesim[{EXTRA_OF[error.name]}]'", 2
    return f"{type(error).__name__}: {error} (a defect of moesim; {TRACEBACK}=1 shows where)", 70


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    advice = f". See: {context.command_path} --help" if context else ""
    return f"{error.format_message().removesuffix('.')}{advice}"


def dispatch(arguments: list[str]) -> int:
    """Parse and run; the exit code of `--help` and the like is 0. Raises whatever the verb raises."""
    if asked := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "moesim", COMPLETE, asked)
    for word in arguments:
        if "\0" in word:
            raise BadInput("holds a null byte", where=word, way_out="a name without it")
    try:
        with cli.make_context("moesim", arguments or ["--help"]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return 0


class Deaf(io.TextIOBase):
    """A stdout whose reader may go (`| head -1`): the command goes on, so that its exit code is what it found."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream, or nothing."""
        with self._heard():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream, or nothing."""
        with self._heard():
            self._stream.flush()

    def fileno(self) -> int:
        """The stream's."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """The stream's."""
        return self._stream.isatty()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            _silence_stdout()


def _as_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _silence_stdout() -> None:
    """The reader has gone: nothing is left to say, and the interpreter's own flush at exit must not fail either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
