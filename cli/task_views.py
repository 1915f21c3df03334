"""Tasks as people see them."""

from __future__ import annotations

from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    NUMBER,
    TIME,
    Column,
    Document,
    Field,
    Fields,
    Line,
    Part,
    Table,
    View,
    understanding,
)
from vcp_cluster.cli.values import clean, format_amount, format_number, shorten


def describe(task: Document) -> str:
    """A task's state in one line, for progress; raise `DocumentNotUnderstood`."""
    with understanding():
        return clean(_describe(task))


def _describe(task: Document) -> str:
    name, node = f"task {shorten(task['id'])}", task["node"]
    if task["status"] == "assigned":
        return f"{name} assigned to node {shorten(node)} (attempt {task['attempts']})"
    if task["status"] == "proven":
        return f"{name} proven by node {shorten(node)}: {task['result']}, being checked"
    if task["status"] in ("accepted", "settled"):
        return f"{name} {task['status']}: {format_amount(task['reward'])} VCP to {shorten(node)}"
    return f"{name} {task['status']}"


def why_ended(task: Document) -> str:
    """Why a task ended without a result: the outcome of its last attempt."""
    if not task["assignments"]:
        return f"it was {task['status']} before a node took it"
    last = task["assignments"][-1]
    detail = f" ({last['detail']})" if last["detail"] else ""
    return f"the last of {task['attempts']} attempts ended as {last['outcome']}{detail}"


def _list_page(document: Document) -> list[Part]:
    return [
        Table(
            (
                Column("TASK", "id", ID),
                Column("STATUS", "status"),
                Column("REWARD", "reward", AMOUNT),
                Column("NODE", "node", ID),
                Column("ATTEMPTS", "attempts", NUMBER),
                Column("RESULT", "result", is_elastic=True),
                Column("RECEIPT", "receipt"),
                Column("SUBMITTED", "submitted.time", TIME),
            ),
            document["tasks"],
            empty="no tasks yet.  Next: vcp-cluster task submit --help",
        )
    ]


def _page(task: Document) -> list[Part]:
    limits, name = task["limits"], shorten(task["id"])
    parts: list[Part] = [
        Fields(
            (
                Field("task", task["id"], ID),
                Field("status", task["status"]),
                Field("reward", task["reward"], AMOUNT),
                Field("client", task["client"], ID),
                Field("node", task["node"], ID),
                Field("module", f"{task['module_hash']} ({_bytes(task['module_size'])})"),
                Field("entry point", task["entry_point"]),
                Field("input", f"{task['input_hash']} ({_bytes(task['input_size'])})"),
                Field("limits", _limits(limits)),
                Field("submitted", task["submitted"]["time"], TIME),
                Field("result", task["result"]),
                Field("gas", task["gas"], NUMBER),
                Field("output", _output(task)),
                Field("proof", task["proof"], ID),
                Field("batch", task["batch"], NUMBER),
                Field("receipt", task["receipt"]),
            )
        ),
        Line(),
        Table(
            (
                Column("ATTEMPT", lambda one: one["attempt"] + 1, NUMBER),
                Column("NODE", "node", ID),
                Column("TIME", "time", TIME),
                Column("OUTCOME", "outcome"),
                Column("PROOF", "proof", ID),
                Column("DETAIL", "detail", is_elastic=True),
            ),
            task["assignments"],
            empty="not assigned yet",
        ),
    ]
    steps = []
    if task["output_length"] is not None:
        steps.append(f"vcp-cluster task output {name}")
    if task["proof"] is not None:
        steps.append(f"vcp-cluster proof explain {shorten(task['proof'])}")
    if task["receipt"] == "anchored":
        steps.append(receipt_command(task))
    return [*parts, Line(), *(Line(f"next: {step}") for step in steps)] if steps else parts


def receipt_command(task: Document) -> str:
    """The command that exports a task's settlement receipt."""
    name = shorten(task["id"])
    return f"vcp-cluster receipt export {name} --out {name}.receipt"


def _bytes(size: int) -> str:
    return f"{format_number(size)} bytes"


def _limits(limits: Document) -> str:
    return (
        f"gas {format_number(limits['gas'])} · memory {_bytes(limits['memory_bytes'])} · "
        f"run {format_number(limits['run_ms'])} ms · output {_bytes(limits['output_bytes'])} · "
        f"deadline {format_number(limits['deadline_ms'])} ms"
    )


def _output(task: Document) -> str | None:
    if task["output_hash"] is None:
        return None
    return f"{task['output_hash']} ({_bytes(task['output_length'])})"


TASKS = View(
    _list_page, lambda document: [one["id"] for one in document["tasks"]], "tasks", "vcp/task/v1"
)
TASK = View(_page, lambda task: [task["id"]])
