"""The Triton backend of melcap: the kernels of an operation are in the module of its name.

Inside melcap only the registry imports this package, and only where triton is installed. In the
repository it is the folder `kernels`; installed, it is `melcap.kernels`. Its modules import each
other relatively, so they are loaded once, even if the folder is on the path as `kernels`.
"""

import importlib
import pkgutil

from melcap.ops.registry import OPERATIONS as _ALL

_MODULES = {module.name for module in pkgutil.iter_modules(__path__)}
OPERATIONS = tuple(name for name in _ALL if name in _MODULES)
"""The operations that have kernels."""

for _name in OPERATIONS:
    importlib.import_module(f"melcap.kernels.{_name}")
