"""The links between members: TLS 1.3 with mutual authentication, MessagePack frames, no pickle."""
