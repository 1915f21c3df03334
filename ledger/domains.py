"""The domain strings: what a hash or a signature is for, so that one is never taken for another.

Hashed or signed in front of the message. `ledger.keys` offers the ledger's own under its name.
"""

from itertools import permutations

DOMAIN_TRANSACTION = b"vcp/tx/v1"
DOMAIN_ENVELOPE = b"vcp/envelope/v1"
DOMAIN_TASK = b"vcp/task/v1"
DOMAIN_PROOF = b"vcp/proof/v1"
DOMAIN_COMMITMENT = b"vcp/commitment/v1"
DOMAIN_BLOB = b"vcp/blob/v1"
DOMAIN_UPLOAD = b"vcp/upload/v1"
DOMAIN_TELEMETRY = b"vcp/telemetry/v1"
DOMAIN_VERDICT = b"vcp/verdict/v1"
DOMAIN_AUDIT = b"vcp/audit/v1"
DOMAIN_SELECT = b"vcp/select/v1"
DOMAIN_ROOT = b"vcp/root/v1"
DOMAIN_HEADER = b"vcp/header/v1"
DOMAIN_PEER = b"vcp/peer/v1"
DOMAIN_PROFILE = b"vcp/profile/v1"
DOMAIN_EXECUTION = b"vcp/execution/v1"
DOMAIN_TRACE = b"vcp/trace/v1"
DOMAIN_TLS = b"vcp/tls/v1"

DOMAINS = tuple(value for name, value in sorted(globals().items()) if name.startswith("DOMAIN_"))

# A domain that is a prefix of another would let one message be read as two things.
assert not any(a.startswith(b) for a, b in permutations(DOMAINS, 2))
