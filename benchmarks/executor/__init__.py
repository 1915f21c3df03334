"""What metering and tracing cost: kernels as native code, plain WebAssembly and in the profile."""
