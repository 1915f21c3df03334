"""What holds for one invocation, whichever command it is: options that errors obey too."""

from __future__ import annotations

from dataclasses import dataclass

import click


@dataclass
class Settings:
    """Made by the root command and passed down as `ctx.obj`; options set it while they are read."""

    is_debug: bool = False
    is_colored: bool = True
    format: str = "table"
    is_quiet: bool = False


def get_settings(ctx: click.Context) -> Settings:
    """The settings of the invocation that `ctx` belongs to."""
    settings = ctx.find_root().obj
    assert isinstance(settings, Settings), "made by the root command"
    return settings


def debug_option() -> click.Option:
    """`--debug`: a traceback for what would be one line."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        get_settings(ctx).is_debug |= value

    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Show a traceback when something fails.",
    )


def color_option() -> click.Option:
    """`--no-color`, beside the variable NO_COLOR and TERM=dumb."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            get_settings(ctx).is_colored = False

    return click.Option(
        ["--no-color"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Print without colours (also: NO_COLOR=1).",
    )
