"""The WebAssembly binary format of the profile: a strict reader and the few writers it needs."""
