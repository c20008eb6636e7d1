"""Which of PyTorch's file formats a file has, told without PyTorch and without running anything in it.

All are ZIP archives (older ones bare pickles) and differ by their members below one root folder:

==================  ====================================  ============================================
members             written by                            here
==================  ====================================  ============================================
``models/*.json``   ``torch.export.save``                 a program that can be exported
``aotinductor/…``   ``torch._inductor.aoti_compile…``     machine code for one kind of processor
``code/…``          ``torch.jit.save`` (TorchScript)      the exporter takes it no more
``data.pkl``        ``torch.save``                        a pickle: weights, or a class that is elsewhere
==================  ====================================  ============================================
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from fleet.protocol.errors import InvalidModel

RECIPE = (
    "torch.export.save(torch.export.export(model.eval(), (inputs,),"
    " dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2')"
)
MAX_MEMBERS = 100_000
PICKLE_MAGIC = b"\x80"

_REFUSED = (
    ("data/aotinductor/", "holds a model compiled for one kind of processor (AOTInductor)"),
    ("code/", "is TorchScript, which PyTorch's exporter takes no more"),
    ("serialized_exported_program.json", "was saved by PyTorch 2.7 or older"),
    ("data.pkl", "is a pickle of torch.save: weights without their module, or a program to run"),
)


def check_exported_program(data: bytes, path: Path) -> None:
    """Refuse everything but a program saved by ``torch.export.save``.

    Args:
        data: The file's contents.
        path: The file, for messages.

    Raises:
        InvalidModel: It is something else; the message says what, and how to save a program.
    """
    save = f"Where the model was trained, save it as a program: {RECIPE}"
    if data.startswith(PICKLE_MAGIC):
        raise InvalidModel(f"{path} is a pickle, not a program.", remedy=save)
    members = {name.partition("/")[2] or name for name in _members(data, path)}
    for prefix, what in _REFUSED:
        if any(member.startswith(prefix) for member in members):
            raise InvalidModel(f"{path} {what}.", remedy=save)
    if not any(member.startswith("models/") and member.endswith(".json") for member in members):
        raise InvalidModel(f"{path} is not a program of torch.export.save.", remedy=save)


def _members(data: bytes, path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        raise InvalidModel(
            f"{path} is not a PyTorch file, or damaged: {error}.", remedy="Save or download it again."
        ) from error
    if len(names) > MAX_MEMBERS or unpacked > 2 * len(data) + MAX_MEMBERS:  # PyTorch stores uncompressed
        raise InvalidModel(
            f"{path} unpacks to {unpacked} bytes in {len(names)} members, which no model does."
        )
    return names
