"""Which of the three ways a function is run in: on threads, on an event loop, or as machine code without the GIL."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ConfigurationError
from tidegate.executor import _native

DOUBLES = "double(double)"
BYTES = "int(bytes,out)"


@dataclass(frozen=True, slots=True)
class CFunction:
    """A C function by address: from ctypes, cffi or a Numba ``cfunc``. It runs without the GIL, on all cores.

    ``signature`` is ``"double(double)"``, applied to buffers of doubles, or ``"int(bytes,out)"``:
    ``int f(const void *in, size_t in_len, void *out, size_t out_cap, size_t *out_len)``, where 0 is success, a positive
    number a failure that may be retried, a negative one a final failure. ``out_bytes`` is the room for one output.
    ``blocks`` says that it waits rather than computes, so that more of them run at once than there are cores.
    ``keep`` is anything that has to stay alive for the address to be valid.

    >>> CFunction(1, "void(int)")
    Traceback (most recent call last):
    ...
    tidegate.errors.ConfigurationError: signature 'void(int)': use "double(double)" or "int(bytes,out)"
    """

    address: int
    signature: str = DOUBLES
    out_bytes: int = 64
    keep: object = None
    name: str = "C function"
    blocks: bool = False

    def __post_init__(self) -> None:
        if self.signature not in (DOUBLES, BYTES):
            raise ConfigurationError(f"signature {self.signature!r}", remedy=f'use "{DOUBLES}" or "{BYTES}"')
        if self.address <= 0:
            raise ConfigurationError(f"address {self.address}", remedy="give the address of a C function")
        if self.out_bytes < 0:
            raise ConfigurationError(f"out_bytes={self.out_bytes}", remedy="use 0 or more")

    @classmethod
    def of(cls, function: Any, signature: str = DOUBLES, *, out_bytes: int = 64) -> CFunction:
        """From a ctypes function or callback, a Numba ``cfunc`` (its ``address``) or a cffi pointer."""
        address = getattr(function, "address", None)
        if address is None:
            import ctypes

            try:
                address = ctypes.cast(function, ctypes.c_void_p).value
            except (TypeError, ctypes.ArgumentError):
                address = _cffi_address(function)
        return cls(int(address or 0), signature, out_bytes, function, getattr(function, "__name__", "C function"))


def _cffi_address(function: Any) -> int:
    try:
        import cffi  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise ConfigurationError(
            f"{type(function).__name__} is no C function",
            remedy="give a ctypes function, a Numba cfunc or a cffi pointer",
        ) from None
    return int(cffi.FFI().cast("uintptr_t", function))


def kind_of(function: Any) -> int:
    """KIND_SYNC, KIND_COROUTINE or KIND_C.

    >>> async def visit(url): ...
    >>> kind_of(visit) == kind_of(functools.partial(visit, "x")) == _native.KIND_COROUTINE
    True
    """
    if isinstance(function, CFunction):
        return _native.KIND_C
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return _native.KIND_COROUTINE
    return _native.KIND_SYNC


async def as_coroutine(value: Any) -> Any:
    """A coroutine for what a function of a coroutine lane returned: an awaitable, or a plain value."""
    return await value if inspect.isawaitable(value) else value
