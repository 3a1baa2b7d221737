"""Quantization parameters in a file beside a float model (AIMET's encodings).

fields    JSON, read strictly
grids     scale and offset -> QParams
versions  the schema of each version -> Encoding
overlay   encodings laid onto the tensors they name, by any importer
write     QParams of a module -> a document of version 2.0.0
"""

from tvm_qat.importers.encodings.overlay import Overlay, read_encodings

__all__ = ["Overlay", "read_encodings"]
