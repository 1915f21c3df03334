"""The benchmark suite: this cluster, etcd and bare pysyncobj on one machine, in one run.

    machine/     limits of the machine, what the run really got of it, usage of processes
    load/        lean clients (HTTP/1.1, gRPC) and the closed loop that drives them
    systems/     what is measured: start, stop, kill, prepare requests, read everything back
    workloads/   what is done to the systems
    run.py       one whole run; document.py is its JSON, compare.py and plots.py read it

`python -m benchmarks` and `vcp-cluster bench run` are the same command. docs/benchmarks.md says what
each figure means and under which conditions it holds.
"""
