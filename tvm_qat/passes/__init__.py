"""IRModule -> IRModule. One pass a file; their order stands in `tvm_qat.pipeline`."""
