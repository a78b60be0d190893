"""What this machine's processor is called, and what it can do that decides the speed and the bytes of int8."""

import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16")


@cache
def processor() -> str:
    """Its name and those of its abilities that int8 and bfloat16 arithmetic rest on, as the system gives them."""
    try:
        lines = [line.partition(":")[::2] for line in _CPUINFO.read_text(encoding="utf-8").splitlines() if ":" in line]
    except OSError:
        lines = []
    values = {key.strip(): value.strip() for key, value in lines}
    name = values.get("model name") or platform.processor() or platform.machine()
    flags = (values.get("flags") or values.get("Features") or "").split()
    return " ".join([name, *(flag for flag in _FLAGS if flag in flags)])
