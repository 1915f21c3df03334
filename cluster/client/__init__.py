"""The client of a cluster, over HTTP."""

from vcp_cluster.cluster.client.blobs import Blob
from vcp_cluster.cluster.client.client import Client
from vcp_cluster.cluster.client.endpoints import parse_endpoints

__all__ = ["Blob", "Client", "parse_endpoints"]
