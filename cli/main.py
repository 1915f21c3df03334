"""The root of `vcp-cluster`: the table of commands, and what every end of a command has in common.

To add a command, write it in a file of its own and name it in COMMANDS.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from vcp_cluster.cli.commands import Command, Entry, LazyGroup
from vcp_cluster.cli.settings import Settings, color_option, debug_option

PROGRAM = "vcp-cluster"

COMMANDS = {
    "demo": Entry("vcp_cluster.cli.demo:demo", "Run the whole road once, on this machine."),
    "dev": Entry("vcp_cluster.cli.dev:dev", "Keep a cluster up on this machine until Ctrl-C."),
    "init": Entry("vcp_cluster.cli.init:init", "Make the directories of a new cluster."),
    "join": Entry("vcp_cluster.cli.join:join", "Run a member of a cluster."),
    "cert": Entry("vcp_cluster.cli.cert:cert", "Show, issue and replace members' certificates."),
    "status": Entry("vcp_cluster.cli.status:status", "Show members, heights, roots and counts."),
    "worker": Entry("vcp_cluster.cli.worker:worker", "Run tasks on this machine for pay."),
    "task": Entry("vcp_cluster.cli.task:task", "Submit tasks, follow them, fetch outputs."),
    "node": Entry("vcp_cluster.cli.node:node", "Look at compute nodes."),
    "proof": Entry("vcp_cluster.cli.proof:proof", "Look at proofs and why they were rejected."),
    "account": Entry("vcp_cluster.cli.account:account", "Make accounts, look at them, move VCP."),
    "tx": Entry("vcp_cluster.cli.tx:tx", "Look up a transaction by its id."),
    "batch": Entry("vcp_cluster.cli.batch:batch", "Look at settlement batches, seal one."),
    "anchor": Entry("vcp_cluster.cli.anchor:anchor", "Look at anchors, audit, set up Bitcoin."),
    "receipt": Entry("vcp_cluster.cli.receipt:receipt", "Export and verify settlement receipts."),
    "bench": Entry("vcp_cluster.cli.bench:bench", "Measure this cluster against etcd, here."),
    "version": Entry("vcp_cluster.cli.version:version", "Show versions."),
}


class Root(LazyGroup):
    """The outermost command: it turns every error into one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit. With `standalone_mode` off, return the exit code instead."""
        settings = Settings()
        for stream in (sys.stdout, sys.stderr):
            # A terminal without Unicode shows question marks instead of ending the command.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            result = super().main(
                args=args,
                prog_name=PROGRAM,
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                obj=settings,
                **extra,
            )
            sys.stdout.flush()
            code = result if isinstance(result, int) else 0
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends in one line
            # Only now: a command that succeeds does not pay for the error tree.
            from vcp_cluster.cli.failures import report

            code = report(error, settings)
        if standalone_mode:
            sys.exit(code)
        return code


@click.group(
    cls=Root,
    entries=COMMANDS,
    examples=(
        "vcp-cluster status",
        "vcp-cluster task submit --module wordcount.wasm --input README.md --reward 10 --wait",
    ),
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
    params=[color_option(), debug_option()],
)
def cli() -> None:
    """Pay untrusted workers for running WebAssembly tasks, on a ledger that several members keep.

    A command finds its cluster by --cluster URL, the variable VCP_CLUSTER, --dir DIR, or the
    profile that `init` and `dev` write, in this order.
    """


@cli.command(
    "help",
    cls=Command,
    examples=("vcp-cluster help", "vcp-cluster help task submit"),
)
@click.argument("command", nargs=-1)
@click.pass_context
def help_command(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of a command: the same as COMMAND --help."""
    here = ctx.find_root()
    for name in command:
        if not isinstance(here.command, click.Group):
            raise click.UsageError(f"{here.command_path} has no commands", ctx)
        _, found, _ = here.command.resolve_command(here, [name])
        if found is None:
            raise click.UsageError(f"no command {name[:50]!r}", ctx)
        here = click.Context(found, info_name=name, parent=here)
    from vcp_cluster.cli.output import write_text

    write_text(here.get_help())


def main() -> None:
    """Entry point of the installed program."""
    cli()


if __name__ == "__main__":
    main()
