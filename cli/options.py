"""Options that several commands share, as decorators.

@offline          output: Output      -o, --json, --quiet
@finds            access: Access      and --cluster, --dir
@reads            access: Access      and --timeout
@writes           access: Access      and --key
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.settings import get_settings
from vcp_cluster.cli.values import DURATION

FORMATS = ("table", "json", "ndjson", "plain")

Function = Callable[..., Any]
TIMEOUT_MS = 30_000
WAIT_MS = 600_000
PATH = click.Path(path_type=Path)


def _remember_format(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """`-o` and `--json` set one thing; errors obey it too."""
    wanted = "json" if value is True else value
    if not wanted:
        return
    settings = get_settings(ctx)
    if settings.format not in ("table", wanted):
        raise click.UsageError(f"-o {settings.format} and -o {wanted} are given", ctx)
    settings.format = wanted


def _remember_quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    get_settings(ctx).is_quiet |= value


def _output_options(function: Function) -> Function:
    for option in reversed(
        (
            click.option(
                "-o",
                "--output",
                type=click.Choice(FORMATS),
                expose_value=False,
                is_eager=True,
                callback=_remember_format,
                help="Form of standard output; a table by default.",
            ),
            click.option(
                "--json",
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_remember_format,
                help="Short for -o json.",
            ),
            click.option(
                "-q",
                "--quiet",
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_remember_quiet,
                help="Print only ids, and no messages.",
            ),
        )
    ):
        function = option(function)
    return function


_cluster_option = click.option(
    "--cluster",
    metavar="URLS",
    envvar="VCP_CLUSTER",
    show_envvar=True,
    help="Members' HTTP doors, http://HOST:PORT separated by commas.",
)
_directory_option = click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=PATH,
    help="Directory of a client or member, made by `init`.",
)
_timeout_option = click.option(
    "--timeout",
    type=DURATION,
    help="How long to try before giving up; 30s by default, 10m for a task to end.",
)
_key_option = click.option(
    "--key",
    "key_file",
    metavar="FILE",
    type=PATH,
    help="Key file that signs; by default that of --dir or of the profile.",
)


def offline(function: Function) -> Function:
    """Options of a command that talks to nobody; it gets `output`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        settings = get_settings(click.get_current_context())
        return function(*args, output=Output(settings), **kwargs)

    return _output_options(call)


def _with_access(function: Function) -> Function:
    @functools.wraps(function)
    def call(
        *args: Any,
        cluster: str | None,
        directory: Path | None,
        timeout: int | None = None,
        key_file: Path | None = None,
        **kwargs: Any,
    ) -> Any:
        access = Access(
            output=Output(get_settings(click.get_current_context())),
            cluster=cluster,
            directory=directory,
            key_file=key_file,
            timeout_ms=timeout or TIMEOUT_MS,
            wait_ms=timeout or WAIT_MS,
        )
        return function(*args, access=access, **kwargs)

    return call


def finds(function: Function) -> Function:
    """Options of a command that finds a cluster and stays with it; it gets `access`."""
    return _cluster_option(_directory_option(_output_options(_with_access(function))))


def reads(function: Function) -> Function:
    """Options of a command that reads from a cluster; it gets `access`."""
    inner = _timeout_option(_output_options(_with_access(function)))
    return _cluster_option(_directory_option(inner))


def writes(function: Function) -> Function:
    """Options of a command that signs a transaction; it gets `access`."""
    inner = _timeout_option(_output_options(_with_access(function)))
    return _cluster_option(_directory_option(_key_option(inner)))
