"""`vcp-cluster cert`: the certificates of the links between members."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.files import write_out
from vcp_cluster.cli.options import PATH, offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import ID, Column, Document, Line, Part, Table, View

if TYPE_CHECKING:
    from datetime import datetime

DAYS_MAX = 3652
DAYS = 1826

_days_option = click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=DAYS,
    show_default=True,
    help="How long the certificate is valid.",
)


@click.group(
    cls=Group,
    examples=("vcp-cluster cert show --dir paris", "vcp-cluster cert rotate --dir paris/a"),
)
def cert() -> None:
    """Show, issue and replace the certificates of the links between members."""


@cert.command(
    "show",
    examples=("vcp-cluster cert show --dir paris", "vcp-cluster cert show --dir paris/a --json"),
)
@click.option(
    "--dir",
    "directory",
    type=PATH,
    default=".",
    metavar="DIR",
    help="A member's directory, or the one that `init` made; by default this one.",
)
@offline
def show(output: Output, directory: Path) -> None:
    """Show names, fingerprints and dates of the certificates in a directory."""
    from vcp_cluster.cluster.certification import describe_certificates

    document = {
        "schema": "vcp/certificates/v1",
        "certificates": [
            {
                "name": row.name,
                "file": str(row.path),
                "fingerprint": row.fingerprint,
                "not_before": _format(row.not_before),
                "not_after": _format(row.not_after),
                "status": row.status,
            }
            for row in describe_certificates(directory)
        ],
    }
    output.emit(document, CERTIFICATES)


@cert.command(
    "issue",
    examples=(
        "vcp-cluster cert issue a --ca paris --request a.csr --out a.crt",
        "vcp-cluster cert issue a --ca paris --days 365 --out a.crt",
    ),
)
@click.argument("name")
@click.option(
    "--ca",
    "authority",
    type=PATH,
    required=True,
    metavar="DIR",
    help="The directory that `init` made, with ca.key.",
)
@click.option(
    "--request",
    type=PATH,
    metavar="FILE",
    help="What `cert rotate --request` wrote; without it the present key is certified again.",
)
@click.option("--out", type=PATH, required=True, metavar="FILE", help="The certificate.")
@_days_option
@offline
def issue(
    output: Output, name: str, authority: Path, request: Path | None, out: Path, days: int
) -> None:
    """Issue a certificate for member NAME with the CA's key, where that is kept.

    Bring it to the member's machine and install it with `cert rotate --certificate`.
    """
    from vcp_cluster.cluster.certificates import fingerprint, to_pem
    from vcp_cluster.cluster.certification import issue as issue_certificate

    certificate = issue_certificate(authority, name, request, days=days)
    write_out(out, to_pem(certificate))
    output.emit(
        {
            "schema": "vcp/certificate/v1",
            "name": name,
            "file": str(out),
            "fingerprint": fingerprint(certificate),
            "not_after": _format(certificate.not_valid_after_utc),
            "next": f"vcp-cluster cert rotate --dir {name} --certificate {out.name}",
        },
        CERTIFICATE,
    )


@cert.command(
    "rotate",
    examples=(
        "vcp-cluster cert rotate --dir paris/a",
        "vcp-cluster cert rotate --dir a --request a.csr",
        "vcp-cluster cert rotate --dir a --certificate a.crt",
    ),
)
@click.option(
    "--dir", "directory", type=PATH, required=True, metavar="DIR", help="The member's directory."
)
@click.option(
    "--ca",
    "authority",
    type=PATH,
    metavar="DIR",
    help="The directory that `init` made, with ca.key; by default the one above --dir.",
)
@click.option(
    "--request",
    type=PATH,
    metavar="FILE",
    help="The CA is elsewhere: make a key, and write a request for `cert issue` to FILE.",
)
@click.option(
    "--certificate", type=PATH, metavar="FILE", help="Install what `cert issue` wrote to FILE."
)
@_days_option
@offline
def rotate(
    output: Output,
    directory: Path,
    authority: Path | None,
    request: Path | None,
    certificate: Path | None,
    days: int,
) -> None:
    """Give a member a new TLS key and certificate. It may be running: no restart is needed.

    Connections that stand go on with the old certificate, which stays valid until its end.
    """
    from vcp_cluster.cluster import certification
    from vcp_cluster.cluster.certificate_files import load_tls
    from vcp_cluster.cluster.certificates import fingerprint, to_pem
    from vcp_cluster.cluster.directory import MemberDirectory

    if sum(one is not None for one in (authority, request, certificate)) > 1:
        raise click.UsageError("only one of --ca, --request and --certificate can be given")
    member = MemberDirectory.load(directory)
    if request is not None:
        write_out(request, to_pem(certification.begin_replacement(member)))
        output.emit(
            {
                "schema": "vcp/certificate-request/v1",
                "name": member.name,
                "file": str(request),
                "next": f"vcp-cluster cert issue {member.name} --ca DIR --request {request.name} "
                f"--out {member.name}.crt",
            },
            REQUEST,
        )
        return
    if certificate is not None:
        path = certification.finish_replacement(member, certificate)
    else:
        place = authority or member.path.parent
        path = certification.replace_certificate(member, place, days=days)
    fresh = load_tls(path).certificate
    output.emit(
        {
            "schema": "vcp/certificate/v1",
            "name": member.name,
            "file": str(path),
            "fingerprint": fingerprint(fresh),
            "not_after": _format(fresh.not_valid_after_utc),
            "next": None,
        },
        CERTIFICATE,
    )


@cert.command(
    "replace-ca",
    examples=(
        "vcp-cluster cert replace-ca --ca paris",
        "vcp-cluster cert replace-ca --ca paris --json",
    ),
)
@click.option(
    "--ca",
    "authority",
    type=PATH,
    required=True,
    metavar="DIR",
    help="The directory that `init` made, with ca.key.",
)
@offline
def replace_ca(output: Output, authority: Path) -> None:
    """Replace the CA by a new one. Members believe both until the old one leaves their ca.crt.

    Copy DIR/ca.crt to each member, then rotate the certificate of each, then remove the old CA.
    """
    from vcp_cluster.cluster.certificates import fingerprint
    from vcp_cluster.cluster.certification import replace_authority
    from vcp_cluster.cluster.directory import AUTHORITY_FILE

    certificate = replace_authority(authority)
    path = authority / AUTHORITY_FILE
    output.emit(
        {
            "schema": "vcp/certificate/v1",
            "name": "CA",
            "file": str(path),
            "fingerprint": fingerprint(certificate),
            "not_after": _format(certificate.not_valid_after_utc),
            "next": f"copy {path} over ca.crt of each member; then vcp-cluster cert rotate",
        },
        CERTIFICATE,
    )


def _format(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"


def _certificates_page(document: Document) -> list[Part]:
    return [
        Table(
            (
                Column("NAME", "name"),
                Column("FINGERPRINT", "fingerprint", ID),
                Column("FROM", _date("not_before")),
                Column("UNTIL", _date("not_after")),
                Column("STATUS", "status", is_elastic=True),
            ),
            document["certificates"],
            empty="no certificates",
        )
    ]


def _date(key: str) -> Callable[[Document], str | None]:
    """The year matters here, the hour does not."""
    return lambda item: item[key] and item[key][:10]


def _certificate_page(document: Document) -> list[Part]:
    lines: list[Part] = [
        Line(
            f"certificate of {document['name']} in {document['file']}, valid until "
            f"{document['not_after'][:10]}"
        ),
        Line(f"fingerprint {document['fingerprint']}"),
    ]
    if document["next"]:
        lines.append(Line(f"next: {document['next']}"))
    return lines


def _request_page(document: Document) -> list[Part]:
    return [
        Line(f"request of {document['name']} in {document['file']}"),
        Line(f"next, where the CA is: {document['next']}"),
    ]


CERTIFICATES = View(
    _certificates_page,
    lambda document: [one["fingerprint"] or "-" for one in document["certificates"]],
    items="certificates",
    item_schema="vcp/certificate-row/v1",
)
CERTIFICATE = View(_certificate_page, lambda document: [document["fingerprint"]])
REQUEST = View(_request_page, lambda document: [document["file"]])
