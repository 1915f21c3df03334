"""`vcp-cluster task submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.failures import EXIT_FAILED
from vcp_cluster.cli.files import read_input
from vcp_cluster.cli.options import PATH, writes
from vcp_cluster.cli.output import preview, to_text
from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    NUMBER,
    TEXT,
    Block,
    Document,
    Field,
    Fields,
    Line,
    Part,
    View,
    pick,
)
from vcp_cluster.cli.task_views import TASK, describe, receipt_command, why_ended
from vcp_cluster.cli.values import AMOUNT as AMOUNT_VALUE
from vcp_cluster.cli.values import DURATION, SIZE, format_amount, format_number, shorten
from vcp_cluster.cli.writing import dry_run_option, print_plan

if TYPE_CHECKING:
    from vcp_cluster.cluster.client import Client

SHOWN_CHARACTERS_MAX = 16 * 1024


@click.command(
    cls=Command,
    examples=(
        "vcp-cluster task submit --module wordcount.wasm --input README.md --reward 10 --wait",
        "cat update.bin | vcp-cluster task submit --module fedavg.wasm --input - --reward 2.5",
    ),
)
@click.option(
    "--module", type=PATH, required=True, metavar="FILE", help="The WebAssembly module, binary."
)
@click.option(
    "--input",
    "input_file",
    type=PATH,
    metavar="FILE",
    help="Its input; - is standard input; empty if it is left out.",
)
@click.option(
    "--reward", type=AMOUNT_VALUE, required=True, help="What a right result is worth, in VCP."
)
@click.option("--entry-point", default="vcp_run", show_default=True, help="Exported function.")
@click.option("--gas", type=click.IntRange(1, 2**63 - 1), help="Most gas of the run.")
@click.option("--memory", type=SIZE, help="Most memory of the run, such as 64MiB.")
@click.option("--output-size", type=SIZE, help="Longest output, such as 1MiB.")
@click.option("--time", "run_ms", type=DURATION, help="Longest run on a node, such as 30s.")
@click.option(
    "--deadline",
    type=DURATION,
    default="60s",
    show_default=True,
    help="Longest time of one attempt, transfers included.",
)
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@dry_run_option
@writes
@click.pass_context
def submit(
    ctx: click.Context,
    access: Access,
    module: Path,
    input_file: Path | None,
    reward: int,
    entry_point: str,
    gas: int | None,
    memory: int | None,
    output_size: int | None,
    run_ms: int | None,
    deadline: int,
    wait: bool,
    dry_run: bool,
) -> None:
    """Submit a task: a module, an input, and a reward that is held until a result is accepted.

    Limits that are left out are the cluster's greatest. With --wait, exit code 1 means that the
    task ended without a result and the reward came back.
    """
    from vcp_cluster.executor.limits import INPUT_BYTES_MAX, MODULE_BYTES_MAX

    code = read_input(module, MODULE_BYTES_MAX, option="--module")
    data = b"" if input_file is None else read_input(input_file, INPUT_BYTES_MAX, option="--input")
    if dry_run:
        print_plan(
            access.output,
            "submit a task",
            ("module bytes", "module_size", len(code), NUMBER),
            ("input bytes", "input_size", len(data), NUMBER),
            ("entry point", "entry_point", entry_point, TEXT),
            ("reward", "reward", str(reward), AMOUNT),
        )
        return
    with access.open_client(is_signing=True) as client:
        task = client.submit_task(
            code,
            data,
            reward=reward,
            entry_point=entry_point,
            gas_limit=gas,
            memory_bytes_max=memory,
            run_ms_max=run_ms,
            output_bytes_max=output_size,
            deadline_ms=deadline,
        )
        if wait:
            _wait(ctx, access, client, task)
        else:
            access.output.emit(client.task(task), SUBMITTED)


def _wait(ctx: click.Context, access: Access, client: Client, task: str) -> None:
    """Follow the task and print its result; exit code 1 when there is none."""
    from vcp_cluster.cluster.errors import Timeout

    output = access.output
    output.note(f"task {task} submitted")
    try:
        document = client.wait_task(
            task,
            timeout_s=access.wait_ms / 1000,
            on_change=lambda one: output.note(describe(one)),
        )
    except Timeout as error:
        # It must not read as "try again": a second submission would be a second task.
        raise Timeout(error.message, next_step=f"vcp-cluster task watch {shorten(task)}") from error
    if pick(document, "status") not in ("accepted", "settled"):
        output.emit(document, View(_ended_page, lambda one: [one["id"]]))
        ctx.exit(EXIT_FAILED)
    is_shown = not (output.is_json or output.is_quiet)
    data = client.output(task) if is_shown else b""
    output.emit(document, View(lambda one: _result_page(one, data), lambda one: [one["id"]]))


def _submitted_page(task: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("task", task["id"], ID),
                Field("status", task["status"]),
                Field("reward", task["reward"], AMOUNT),
            )
        ),
        Line(f"next: vcp-cluster task watch {shorten(task['id'])}"),
    ]


def _result_page(task: Document, data: bytes) -> list[Part]:
    """The output between two rules, then the command for the receipt."""
    name = shorten(task["id"])
    paid = f"{format_amount(task['reward'])} VCP to node {shorten(task['node'])}"
    length = f"{format_number(len(data))} bytes"
    parts: list[Part] = [
        Fields(
            (
                Field("task", task["id"], ID),
                Field("status", f"{task['status']}, {paid}"),
                Field("result", f"{task['result']}, gas {format_number(task['gas'])}"),
                Field("output", length),
            )
        ),
        Line(),
    ]
    text = to_text(data)
    if data:
        parts.append(Block(preview(data) if text is None else text[:SHOWN_CHARACTERS_MAX]))
    if data and (text is None or len(text) > SHOWN_CHARACTERS_MAX):
        parts += [Line(f"… all {length}: vcp-cluster task output {name} --out {name}.bin")]
    return [*parts, Line(), Line(f"receipt: {receipt_command(task)}")]


def _ended_page(task: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("task", task["id"], ID),
                Field("status", f"{task['status']}, the reward came back"),
                Field("why", why_ended(task)),
            )
        )
    ]


SUBMITTED = View(_submitted_page, TASK.ids)
