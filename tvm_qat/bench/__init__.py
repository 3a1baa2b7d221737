"""Measures a compiled model beside other runtimes: one process each, in turns, ratios before times.

`worker` and `engines` run in the processes that are measured, and import neither the compiler nor
the rest of tvm_qat: what they hold in memory is what a deployment holds. Everything else runs in
the process that asks.
"""
