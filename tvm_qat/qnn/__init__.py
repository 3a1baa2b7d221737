"""The dialect of quantized operators. `from tvm_qat.qnn import build, reference`."""
