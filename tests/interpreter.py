"""Let Triton's interpreter prepare the language once a launch instead of at each function call.

The interpreter replaces the functions of `triton.language` before each launch, and again before
each call of a device function inside the kernel, where nothing is left to replace. That takes a
large part of the time of kernels that call many such functions.
"""

from __future__ import annotations

import os
from typing import Any


def patch_once() -> None:
    """Change the interpreter of this process; do nothing without one."""
    if os.environ["TRITON_INTERPRET"] != "1":
        return
    try:
        import triton.language as tl
        from triton.runtime import interpreter
    except ImportError:  # no Triton on this platform
        return

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a device function, with its view of the language replaced if it is not yet."""
        languages = [
            value for value in function.fn.__globals__.values() if value is tl or value is tl.core
        ]
        if any(tl.core.is_builtin(language.load) for language in languages):
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call
