"""Why a proof was accepted or rejected, in words: `vcp/explanation/v1`.

Everything here follows from two documents of the API, the proof's and its task's; nothing is asked
of anybody else.
"""

from __future__ import annotations

from typing import Any

from vcp_cluster.cli.page import Document, Field, Fields, Line, Part, View, understanding
from vcp_cluster.cli.values import format_number, shorten

_COMPARED = ("status", "trap", "gas", "output_hash", "output_length", "execution_root")
_STYLES = {"rejected": "red", "accepted": "green"}


def explain_proof(proof: Document, task: Document) -> Document:
    """The explanation of a proof; raise `DocumentNotUnderstood`."""
    with understanding():
        return _explain(proof, task)


def _explain(proof: Document, task: Document) -> Document:
    commitment, status = proof["commitment"], proof["status"]
    groups: dict[tuple[Any, ...], list[Document]] = {}
    for verdict in proof["verdicts"]:
        if verdict["finding"] != "unable":
            groups.setdefault(tuple(verdict[name] for name in _COMPARED), []).append(verdict)
    return {
        "schema": "vcp/explanation/v1",
        "proof": proof["id"],
        "task": proof["task"],
        "node": proof["node"],
        "attempt": proof["attempt"],
        "status": status,
        "headline": _headline(proof, task),
        "claimed": {name: commitment[name] for name in _COMPARED},
        "claimed_time": proof["submitted"]["time"],
        "recomputed": [
            {
                "members": [verdict["member"] for verdict in verdicts],
                "finding": verdicts[0]["finding"],
                **dict(zip(_COMPARED, values, strict=True)),
            }
            for values, verdicts in groups.items()
        ],
        "unable": [
            {"member": verdict["member"], "detail": verdict["detail"]}
            for verdict in proof["verdicts"]
            if verdict["finding"] == "unable"
        ],
        "missing": proof["missing"],
        "differs": proof["differs"],
        "cause": _cause(proof),
        "module_hash": commitment["module_hash"],
        "input_hash": commitment["input_hash"],
        "entry_point": commitment["entry_point"],
        "engine": commitment["engine"],
    }


def _headline(proof: Document, task: Document) -> str:
    """The verdict, where it fell, and what became of the task."""
    status, height = proof["status"], proof["decided_height"]
    when = f" at height {format_number(height)}" if height is not None else ""
    name = f"task {shorten(proof['task'])}"
    if status == "rejected":
        return f"REJECTED{when}, not paid; {name} {_sequel(proof, task)}"
    if status == "accepted":
        how = "checked by running it again" if proof["is_audited"] else "not drawn for audit"
        return f"ACCEPTED{when}, {how}; {name} is {task['status']}"
    if status == "committed":
        return f"COMMITTED, the next entry decides by a draw whether it is audited; {name} waits"
    waits = ", ".join(proof["missing"]) or "nobody"
    return f"UNDER AUDIT, waits for the verdict of {waits}; {name} is {task['status']}"


def _sequel(proof: Document, task: Document) -> str:
    later = [one for one in task["assignments"] if one["attempt"] > proof["attempt"]]
    if later:
        return f"went to node {shorten(later[-1]['node'])} (attempt {task['attempts']})"
    return f"is {task['status']}"


def _cause(proof: Document) -> str:
    """What the differences mean, from the one that says most."""
    differs = set(proof["differs"])
    if proof["status"] == "accepted" and not proof["is_audited"]:
        return "structure, signature and limits were right, and the draw did not pick it"
    if not differs:
        agreed = any(verdict["finding"] == "agree" for verdict in proof["verdicts"])
        return "the recomputed run is equal in every field" if agreed else "no verdict yet"
    if "status" in differs or "trap" in differs:
        return "the run ends in another way than the worker says"
    if "output_hash" in differs or "output_length" in differs:
        return "the same module and input give another output"
    if "gas" in differs:
        return "the output is right, but the gas is not what the run uses"
    return "the output is right, but the execution root is not that of this run"


def _page(document: Document) -> list[Part]:
    fields = [
        Field("claimed", _result(document["claimed"])),
        Field("", f"by node {shorten(document['node'])}, signed, {document['claimed_time']}"),
    ]
    for group in document["recomputed"]:
        members = ", ".join(group["members"])
        noun = "member" if len(group["members"]) == 1 else "members"
        fields += [
            Field("recomputed", _result(group)),
            Field("", f"by {noun} {members}: {group['finding']}"),
        ]
    fields += [
        Field("unable", f"member {one['member']}: {one['detail'] or 'no reason given'}")
        for one in document["unable"]
    ]
    if document["missing"]:
        fields.append(Field("missing", f"the verdict of {', '.join(document['missing'])}"))
    differs = ", ".join(name.replace("_", " ") for name in document["differs"])
    fields += [
        Field("differs", differs or "nothing"),
        Field("cause", document["cause"]),
        Field("check it", f"vcp-cluster proof show {shorten(document['proof'])} --json"),
        Field("", f"or run module {shorten(document['module_hash'])}, {document['entry_point']},"),
        Field("", f"on input {shorten(document['input_hash'])} with {document['engine']}"),
    ]
    style = _STYLES.get(document["status"], "")
    return [Line(document["headline"], style), Line(), Fields(fields)]


def _result(values: Document) -> str:
    """A run's result on one line: how it ended, output, gas, root."""
    status = values["status"]
    if status == "trap":
        status = f"trap: {values['trap']}"
    return (
        f"{status}, output {shorten(values['output_hash'])} "
        f"({format_number(values['output_length'])} bytes), gas {format_number(values['gas'])}, "
        f"root {shorten(values['execution_root'])}"
    )


EXPLANATION = View(_page, lambda document: [document["proof"]])
