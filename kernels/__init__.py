"""The Triton backend of melcap: the kernels of an operation are in the module of its name.

Only the registry imports this package, and only where triton is installed. It is the folder
`kernels` of the repository and installed as `melcap.kernels`. The modules inside import each other
relatively, so that they are loaded once, as `melcap.kernels`, even if something finds the folder
under its own name.
"""

import importlib
import pkgutil

from melcap.ops.registry import OPERATIONS as _ALL

_MODULES = {module.name for module in pkgutil.iter_modules(__path__)}
OPERATIONS = tuple(name for name in _ALL if name in _MODULES)
"""The operations that have kernels."""

for _name in OPERATIONS:
    importlib.import_module(f"melcap.kernels.{_name}")
