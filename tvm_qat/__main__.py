"""`python -m tvm_qat` is `tvm-qat`."""

import sys

from tvm_qat.cli import main

if __name__ == "__main__":
    sys.exit(main())
