"""How a command ends badly: one line, the next step, an exit code. No traceback unless asked for.

1 failed · 2 wrong usage · 3 unavailable · 4 rejected by the ledger · 5 not valid · 6 not found
7 not authorised · 8 outcome unknown · 70 internal error · 71 diverged · 130 interrupted
"""

from __future__ import annotations

import tempfile
import traceback
from typing import NamedTuple

import click

from vcp_cluster.cli.output import (
    OutputClosed,
    detach_output,
    write_error,
    write_error_document,
)
from vcp_cluster.cli.page import DocumentNotUnderstood
from vcp_cluster.cli.settings import Settings
from vcp_cluster.cli.values import clean

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INVALID = 5
EXIT_INTERNAL = 70
EXIT_DIVERGED = 71
EXIT_INTERRUPTED = 130
# What a shell reports for a program that SIGPIPE ended.
EXIT_OUTPUT_CLOSED = 141

WORDS = {
    1: "failed",
    2: "bad_usage",
    3: "unavailable",
    4: "rejected",
    5: "not_valid",
    6: "not_found",
    7: "unauthorised",
    8: "unknown",
    70: "internal",
}


class Failure(NamedTuple):
    """An error as it is told: its code in JSON, what failed, what to do, the exit code."""

    code: str
    message: str
    next_step: str
    exit_code: int


def report(error: BaseException, settings: Settings) -> int:
    """Tell the user about an error and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    if isinstance(error, (OutputClosed, BrokenPipeError)):
        detach_output()
        return EXIT_OUTPUT_CLOSED
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        write_error("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        write_error(error.format_message())
        return EXIT_USAGE
    if settings.is_debug:
        write_error("".join(traceback.format_exception(error)))
    failure = _describe(error)
    write_error(f"error: {failure.message}.  Next: {failure.next_step}")
    if settings.format in ("json", "ndjson"):
        _write_document(failure, settings)
    return failure.exit_code


def _describe(error: BaseException) -> Failure:
    from vcp_cluster.cluster.errors import InvalidTransaction, VcpError

    if isinstance(error, VcpError):
        code = WORDS.get(error.exit_code, "failed")
        if isinstance(error, InvalidTransaction):
            code = error.code.name.lower()
        message, next_step = error.message, error.next_step
        return Failure(code, _one_line(message), _one_line(next_step), error.exit_code)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "vcp-cluster"
        return Failure("bad_usage", _one_line(error.format_message()), f"{path} --help", EXIT_USAGE)
    if isinstance(error, click.ClickException):
        message = _one_line(error.format_message())
        return Failure("failed", message, "correct it and try again", error.exit_code)
    if isinstance(error, DocumentNotUnderstood):
        return Failure(
            "failed",
            f"the member's answer is not understood ({_one_line(str(error))})",
            "compare `vcp-cluster version` here with the members', or read it with -o json",
            EXIT_FAILED,
        )
    where = _save_report(error)
    return Failure(
        "internal", f"internal error: {_one_line(repr(error))}", f"report {where}", EXIT_INTERNAL
    )


def _save_report(error: BaseException) -> str:
    """Write the traceback to a file of the user's own and say where it is."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="vcp-cluster-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        return "what the same command prints with --debug"
    return file.name


def _one_line(text: str) -> str:
    return clean(" ".join(text.split())).rstrip(".")


def _write_document(failure: Failure, settings: Settings) -> None:
    document = {
        "schema": "vcp/error/v1",
        "error": {
            "code": failure.code,
            "message": failure.message,
            "next": failure.next_step,
            "retry_after_ms": None,
            "index": None,
        },
    }
    try:
        write_error_document(document, settings.format)
    except OutputClosed:
        detach_output()
