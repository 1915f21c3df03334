"""`vcp-cluster version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.options import offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import TEXT, Document, Field, Fields, Part, View


def _page(document: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("vcp-cluster", document["version"], TEXT),
                Field("python", document["python"], TEXT),
                Field("wasmtime", document["wasmtime"], TEXT),
            )
        )
    ]


@click.command(cls=Command, examples=("vcp-cluster version", "vcp-cluster version --json"))
@offline
def version(output: Output) -> None:
    """Show the versions of this program, of Python and of the WebAssembly engine."""
    document = {
        "schema": "vcp/version/v1",
        "version": version_of("vcp-cluster"),
        "python": platform.python_version(),
        "wasmtime": version_of("wasmtime"),
    }
    output.emit(document, View(_page, lambda one: [one["version"]]))
