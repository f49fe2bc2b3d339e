"""SIGINT, SIGTERM and SIGHUP (a terminal that is closed) end a command in order, with status 130, 143 or 129; training
writes its checkpoint first. Where SIGHUP was ignored at the start, as by ``nohup``, it stays so.

A signal raises ``Stopped`` at once, or, between ``defer`` and ``stop_deferring``, is only noted: the training looks at
``requested`` where it can write a checkpoint. A second signal, more than a moment later, raises it at once.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOMENT = 3.0  # seconds: a launcher, a shell and the other processes may all pass on the same signal


# What gloo and NCCL say where the process at the other end has gone; torch's own are DistNetworkError and the like.
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport")

LOST = (
    "another process of this run has ended: its own message says why; without one it was killed, perhaps for lack of "
    "memory"
)


class Stopped(SystemExit):
    """The process was told to stop. No Exception: nobody handles it by the way; a process of ``ddp_spawn`` just ends.

    Args:
        signum: the signal.
        message: one line.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        self.signum = signum
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.code = 128 + signum  # the exit status, as a shell has it


class LostProcess(Exception):
    """Another process of a distributed run has ended; the message is one line."""


class _Signals:
    """What was asked of this process."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.requested: int | None = None
        self.since = 0.0
        self.deferred = False
        self.of_scheduler: set[int] = set()
        self.pass_on: Callable[[int], None] | None = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested is not None and time.monotonic() - self.since < MOMENT:
            return
        first, self.requested, self.since = self.requested is None, signum, time.monotonic()
        if first and self.pass_on is not None:
            self.pass_on(signum)
        if not (first and self.deferred):
            raise Stopped(signum)


_signals = _Signals()


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Within it, the signals raise ``Stopped``, or are deferred."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    _signals.forget()
    listen()
    try:
        yield
    finally:
        # The other processes pass on what they were told, perhaps only now: this one is ending already.
        ends_with_others = _signals.requested is not None and _signals.pass_on is not None
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_IGN if ends_with_others else handler)


def listen(*of_scheduler: int) -> None:
    """Takes the signals, and those that a scheduler sends before it requeues a job, back from a library where one has
    set its own handlers."""
    _signals.of_scheduler.update(of_scheduler)
    if threading.current_thread() is threading.main_thread():
        for signum in (*SIGNALS, *of_scheduler):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, _signals.handle)


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Within it the signals are noted; the first one comes when it ends. Those that are ignored stay so, also for the
    processes that are started within it."""
    noted: list[int] = []
    heard = [signum for signum in SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
    before = {signum: signal.signal(signum, lambda signum, frame: noted.append(signum)) for signum in heard}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if noted:
            signal.raise_signal(noted[0])


def requested() -> int | None:
    """The signal that asks this process to stop, if there was one."""
    return _signals.requested


def is_of_scheduler(signum: int) -> bool:
    """Whether a scheduler sends this signal before it requeues the job."""
    return signum in _signals.of_scheduler


def as_stopped(error: BaseException) -> Stopped | None:
    """The error as that of a process that was told to stop; None if it is another.

    Of several processes that stop, one may find that another is gone already.
    """
    if isinstance(error, Stopped):
        return error
    gone = _signals.requested is not None and is_lost_connection(error)
    return Stopped(_signals.requested) if gone else None  # type: ignore[arg-type]


def is_lost_connection(error: BaseException) -> bool:
    """Whether torch.distributed waited in vain for another process."""
    return isinstance(error, RuntimeError) and (
        any(word in str(error) for word in LOST_CONNECTION) or type(error).__name__.startswith("Dist")
    )


def tell_others(pass_on: Callable[[int], None]) -> None:
    """From here on ``pass_on`` hands the first signal to the other processes of the run."""
    _signals.pass_on = pass_on


def defer() -> None:
    """From here on signals are noted, until ``stop_deferring``."""
    _signals.deferred = True


def stop_deferring() -> None:
    """From here on signals raise ``Stopped`` again.

    Raises:
        Stopped: there was one in the meantime.
    """
    _signals.deferred = False
    if _signals.requested is not None:
        raise Stopped(_signals.requested)


def signal_parent(signum: int) -> None:
    """Hands a signal to the process that started this one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(os.getppid(), signum)
