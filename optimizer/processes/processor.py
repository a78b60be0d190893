"""What the processor is, and what of it decides how 8-bit numbers are multiplied."""

import platform
import re
from functools import cache
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""Instructions that decide speed and rounding of low precision."""

_ADDS_IN_32_BITS = {"avx_vnni", "avx512_vnni", "amx_int8"}


@cache
def processor() -> tuple[str, tuple[str, ...]]:
    """Its name, and which of FLAGS it has; as far as Linux tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), ()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set[str]()
    return name[1].strip() if name else platform.machine(), tuple(flag for flag in FLAGS if flag in flags)


def described() -> str:
    """Its name and its flags in one text."""
    name, flags = processor()
    return " ".join([name, *flags])


def saturates() -> bool:
    """Whether products of 8 by 8 bits are added in 16 bits here, where weights of 8 bits overflow and of 7 do not."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return False
    return not _ADDS_IN_32_BITS & set(processor()[1])
