#!/usr/bin/env python3
"""Every instruction that the library's kernels use, on random operands and edge values, against a
statement of what it does in Python integers and floats, which shares nothing with the interpreter.

An instruction of the kernels that is not stated here fails the test. Those that move control are
tested by whole kernels: test_controls.py.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import random
import re
import struct
import subprocess
import sys
from fractions import Fraction

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools/build"))
import hip_kernels  # noqa: E402

M16, M32, M64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1


def s16(x): return (x & M16) - (1 << 16 if x >> 15 & 1 else 0)
def s32(x): return (x & M32) - (1 << 32 if x >> 31 & 1 else 0)
def s64(x): return (x & M64) - (1 << 64 if x >> 63 & 1 else 0)
def s24(x): return (x & 0xffffff ^ 0x800000) - 0x800000
def f32(x): return struct.unpack("<f", struct.pack("<I", x & M32))[0]
def f64(x): return struct.unpack("<d", struct.pack("<Q", x & M64))[0]
def b64(x): return struct.unpack("<Q", struct.pack("<d", x))[0]


def b32(x):
    """The nearest binary32 of a float that is exact, or rounded far beyond it."""
    try:
        return struct.unpack("<I", struct.pack("<f", x))[0]
    except OverflowError:
        return 0xff800000 if x < 0 else 0x7f800000


def half(x):
    """The bits of the nearest binary16."""
    if x != x:
        return None  # which NaN is the device's choice
    try:
        return struct.unpack("<H", struct.pack("<e", x))[0]
    except OverflowError:
        return 0xfc00 if x < 0 else 0x7c00


def rounded(value, wide):
    """The bits of a Fraction, not 0, rounded once to the nearest, ties to even."""
    if wide:
        try:
            quotient = abs(value.numerator) / value.denominator  # which Python rounds correctly
            return b64(-quotient if value < 0 else quotient)
        except OverflowError:
            return b64(-math.inf if value < 0 else math.inf)
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    while Fraction(2) ** exponent > magnitude:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= magnitude:
        exponent += 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    steps = round(magnitude / unit)  # ties to even
    result = float(steps * unit) if steps * unit < 2 ** 128 else math.inf
    return b32(math.copysign(result, -1 if value < 0 else 1))


def fma(a, b, c, wide=False):
    if not all(map(math.isfinite, (a, b, c))):
        try:
            value = a * b + c
        except (OverflowError, ValueError):
            value = math.nan
        return b64(value) if wide else b32(value)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:  # x - x is 0; a sum of zeros has its own sign
        value = a * b + c if c == 0 else 0.0
        return b64(value) if wide else b32(value)
    return rounded(exact, wide)


def nan(bits, wide=False):
    x = f64(bits) if wide else f32(bits)
    return x != x


def truncated(x, low, high):
    if x != x:
        return 0
    return max(low, min(high, int(x) if math.isfinite(x) else (high if x > 0 else low)))


def fmax(a, b):
    if a != a:
        return b
    if b != b:
        return a
    return a if a > b or (a == b and math.copysign(1, a) > 0) else b


def flush(bits):
    return bits & 0x80000000 if bits & 0x7f800000 == 0 else bits


def near(ulps):
    """What a device may round as it likes, within so many units in the last place."""
    def check(got, want):
        if nan(got) or nan(want):
            return nan(got) and nan(want)
        return abs(s32(got) - s32(want)) <= ulps
    return check


COMPARE = {
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b, "neq": lambda a, b: a != b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "nlt": lambda a, b: not a < b, "nle": lambda a, b: not a <= b,
    "ngt": lambda a, b: not a > b, "nge": lambda a, b: not a >= b,
    "o": lambda a, b: a == a and b == b, "u": lambda a, b: a != a or b != b,
    "lg": lambda a, b: a < b or a > b,
}
TYPES = {"u16": (2, lambda x: x & M16), "i16": (2, s16), "u32": (4, lambda x: x), "i32": (4, s32),
         "u64": (8, lambda x: x), "i64": (8, s64), "f32": (4, f32), "f64": (8, f64)}

# Vector instructions of one result: bytes of the sources, bytes of the result, the function of bits.
V = {
    "v_mov_b32": ("4", 4, lambda a: a),
    "v_mov_b16": ("2", 2, lambda a: a & M16),
    "v_mov_b64": ("8", 8, lambda a: a),
    "v_add_u32 v_add_nc_u32": ("44", 4, lambda a, b: a + b),
    "v_sub_u32 v_sub_nc_u32": ("44", 4, lambda a, b: a - b),
    "v_subrev_u32 v_subrev_nc_u32": ("44", 4, lambda a, b: b - a),
    "v_add3_u32": ("444", 4, lambda a, b, c: a + b + c),
    "v_xad_u32": ("444", 4, lambda a, b, c: (a ^ b) + c),
    "v_add_lshl_u32": ("444", 4, lambda a, b, c: (a + b & M32) << c % 32),
    "v_lshl_add_u32": ("444", 4, lambda a, b, c: (a << b % 32) + c),
    "v_lshl_or_b32": ("444", 4, lambda a, b, c: a << b % 32 | c),
    "v_lshl_add_u64": ("848", 8, lambda a, b, c: (a << b % 8) + c),
    "v_and_b32": ("44", 4, lambda a, b: a & b),
    "v_or_b32": ("44", 4, lambda a, b: a | b),
    "v_xor_b32": ("44", 4, lambda a, b: a ^ b),
    "v_not_b32": ("4", 4, lambda a: ~a),
    "v_and_b16": ("22", 2, lambda a, b: a & b),
    "v_or_b16": ("22", 2, lambda a, b: a | b),
    "v_and_or_b32": ("444", 4, lambda a, b, c: a & b | c),
    "v_or3_b32": ("444", 4, lambda a, b, c: a | b | c),
    "v_xor3_b32": ("444", 4, lambda a, b, c: a ^ b ^ c),
    "v_lshlrev_b32": ("44", 4, lambda a, b: b << a % 32),
    "v_lshrrev_b32": ("44", 4, lambda a, b: b >> a % 32),
    "v_ashrrev_i32": ("44", 4, lambda a, b: s32(b) >> a % 32),
    "v_lshlrev_b64": ("48", 8, lambda a, b: b << a % 64),
    "v_lshrrev_b64": ("48", 8, lambda a, b: b >> a % 64),
    "v_ashrrev_i64": ("48", 8, lambda a, b: s64(b) >> a % 64),
    "v_lshlrev_b16": ("22", 2, lambda a, b: (b & M16) << a % 16),
    "v_lshrrev_b16": ("22", 2, lambda a, b: (b & M16) >> a % 16),
    "v_mul_lo_u32": ("44", 4, lambda a, b: a * b),
    "v_mul_hi_u32": ("44", 4, lambda a, b: a * b >> 32),
    "v_mul_i32_i24": ("44", 4, lambda a, b: s24(a) * s24(b)),
    "v_mul_u32_u24": ("44", 4, lambda a, b: (a % 2 ** 24) * (b % 2 ** 24)),
    "v_mad_u32_u24": ("444", 4, lambda a, b, c: (a % 2 ** 24) * (b % 2 ** 24) + c),
    "v_mad_i32_i24": ("444", 4, lambda a, b, c: s24(a) * s24(b) + c),
    "v_min_u32": ("44", 4, min),
    "v_min_i32": ("44", 4, lambda a, b: min(s32(a), s32(b))),
    "v_max_i32": ("44", 4, lambda a, b: max(s32(a), s32(b))),
    "v_bfe_u32": ("444", 4, lambda a, b, c: a >> b % 32 & (1 << c % 32) - 1),
    "v_bfe_i32": ("444", 4, lambda a, b, c: 0 if c % 32 == 0 else (
        lambda field, width: field - (1 << width if field >> width - 1 & 1 else 0))(
            s32(a) >> b % 32 & (1 << c % 32) - 1, c % 32)),
    "v_bfi_b32": ("444", 4, lambda a, b, c: a & b | ~a & c),
    "v_bfrev_b32": ("4", 4, lambda a: int(f"{a:032b}"[::-1], 2)),
    "v_alignbit_b32": ("444", 4, lambda a, b, c: (a << 32 | b) >> c % 32),
    "v_bcnt_u32_b32": ("44", 4, lambda a, b: bin(a).count("1") + b),
    "v_ffbh_u32 v_clz_i32_u32": ("4", 4, lambda a: 32 - a.bit_length() if a else M32),
    "v_perm_b32": ("444", 4, lambda a, b, c: sum(
        ((a << 32 | b) >> 8 * (c >> 8 * n & 7) & 255) << 8 * n for n in range(4))
        if not c & 0xf8f8f8f8 else None),
    "v_add_f32": ("44", 4, lambda a, b: fma(f32(a), 1.0, f32(b))),
    "v_sub_f32": ("44", 4, lambda a, b: fma(f32(a), 1.0, -f32(b))),
    "v_mul_f32": ("44", 4, lambda a, b: b32(f32(a) * f32(b))),
    "v_add_f64": ("88", 8, lambda a, b: b64(f64(a) + f64(b))),
    "v_mul_f64": ("88", 8, lambda a, b: b64(f64(a) * f64(b))),
    "v_fma_f32 v_fmac_f32": ("444", 4, lambda a, b, c: fma(f32(a), f32(b), f32(c))),
    "v_fma_f64 v_fmac_f64": ("888", 8, lambda a, b, c: fma(f64(a), f64(b), f64(c), True)),
    "v_mac_f32": ("444", 4, lambda a, b, c: flush(b32(f32(flush(b32(f32(flush(a)) * f32(flush(b)))))
                                                  + f32(flush(c))))),
    "v_max_f32 v_max_num_f32": ("44", 4, lambda a, b: b32(fmax(f32(a), f32(b)))),
    "v_max3_f32 v_max3_num_f32": ("444", 4, lambda a, b, c: b32(fmax(fmax(f32(a), f32(b)), f32(c)))),
    "v_trunc_f32": ("4", 4, lambda a: b32(math.copysign(math.trunc(f32(a)), f32(a)))
                    if math.isfinite(f32(a)) else a),
    "v_trunc_f64": ("8", 8, lambda a: b64(math.copysign(math.trunc(f64(a)), f64(a)))
                    if math.isfinite(f64(a)) else a),
    "v_floor_f64": ("8", 8, lambda a: b64(math.copysign(math.floor(f64(a)), f64(a)))
                    if math.isfinite(f64(a)) else a),
    "v_rndne_f32": ("4", 4, lambda a: b32(math.copysign(round(f32(a)), f32(a)))
                    if math.isfinite(f32(a)) else a),
    "v_cvt_f32_i32": ("4", 4, lambda a: rounded(Fraction(s32(a)), False) if a else 0),
    "v_cvt_f32_u32": ("4", 4, lambda a: rounded(Fraction(a), False) if a else 0),
    "v_cvt_f32_ubyte0": ("4", 4, lambda a: b32(float(a & 255))),
    "v_cvt_i32_f32": ("4", 4, lambda a: truncated(f32(a), -2 ** 31, 2 ** 31 - 1)),
    "v_cvt_u32_f32": ("4", 4, lambda a: truncated(f32(a), 0, M32)),
    "v_cvt_i32_f64": ("8", 4, lambda a: truncated(f64(a), -2 ** 31, 2 ** 31 - 1)),
    "v_cvt_u32_f64": ("8", 4, lambda a: truncated(f64(a), 0, M32)),
    "v_cvt_f64_i32": ("4", 8, lambda a: b64(float(s32(a)))),
    "v_cvt_f64_f32": ("4", 8, lambda a: b64(f32(a))),
    "v_cvt_f32_f64": ("8", 4, lambda a: b32(f64(a))),
    "v_cvt_f32_f16": ("2", 4, lambda a: b32(struct.unpack("<e", struct.pack("<H", a & M16))[0])),
    "v_pack_b32_f16": ("22", 4, lambda a, b: a & M16 | (b & M16) << 16),
    "v_cvt_pk_f16_f32": ("44", 4, lambda a, b: None if nan(a) or nan(b) else
                         half(f32(a)) | half(f32(b)) << 16),
    "v_cvt_f16_f32": ("4", 2, lambda a: half(f32(a))),
    "v_minmax_i32": ("444", 4, lambda a, b, c: max(min(s32(a), s32(b)), s32(c))),
    "v_maxmin_i32": ("444", 4, lambda a, b, c: min(max(s32(a), s32(b)), s32(c))),
    "v_ldexp_f32": ("4i", 4, lambda a, b: rounded(Fraction(f32(a)) * Fraction(2) ** s32(b), False)
                    if math.isfinite(f32(a)) and f32(a) != 0 else a),
    "v_ldexp_f64": ("8i", 8, lambda a, b: rounded(Fraction(f64(a)) * Fraction(2) ** s32(b), True)
                    if math.isfinite(f64(a)) and f64(a) != 0 else a),
}
# Those whose last bit is the device's.
ROUGH = {
    "v_rcp_f32 v_rcp_iflag_f32": (lambda x: 1 / x if x else math.copysign(math.inf, x)),
    "v_exp_f32": (lambda x: 2.0 ** x if x < 1024 else math.inf),
    "v_log_f32": (lambda x: -math.inf if x == 0 else math.nan if x < 0 else math.log2(x)
                  if math.isfinite(x) else x),
}
# Scalar: bytes of the sources and of the result, the function, and what becomes of SCC: a function
# of sources and the whole result, or None where it stays.
nonzero = (lambda r, *_: r != 0)
S = {
    "s_mov_b32": ("4", 4, lambda a: a, None),
    "s_mov_b64": ("8", 8, lambda a: a, None),
    "s_add_u32 s_add_co_u32": ("44", 4, lambda a, b: a + b, lambda r, a, b: a + b > M32),
    "s_sub_u32 s_sub_co_u32": ("44", 4, lambda a, b: a - b, lambda r, a, b: a < b),
    "s_addc_u32 s_add_co_ci_u32": ("44c", 4, lambda a, b, c: a + b + c,
                                   lambda r, a, b, c: a + b + c > M32),
    "s_subb_u32 s_sub_co_ci_u32": ("44c", 4, lambda a, b, c: a - b - c,
                                   lambda r, a, b, c: a < b + c),
    "s_add_i32 s_add_co_i32": ("44", 4, lambda a, b: a + b,
                               lambda r, a, b: not -2 ** 31 <= s32(a) + s32(b) < 2 ** 31),
    "s_sub_i32 s_sub_co_i32": ("44", 4, lambda a, b: a - b,
                               lambda r, a, b: not -2 ** 31 <= s32(a) - s32(b) < 2 ** 31),
    "s_add_nc_u64": ("88", 8, lambda a, b: a + b, None),
    "s_sub_nc_u64": ("88", 8, lambda a, b: a - b, None),
    "s_mul_u64": ("88", 8, lambda a, b: a * b, None),
    "s_mul_i32": ("44", 4, lambda a, b: a * b, None),
    "s_mul_hi_u32": ("44", 4, lambda a, b: a * b >> 32, None),
    "s_mul_hi_i32": ("44", 4, lambda a, b: s32(a) * s32(b) >> 32, None),
    "s_min_i32": ("44", 4, lambda a, b: min(s32(a), s32(b)), lambda r, a, b: s32(a) < s32(b)),
    "s_max_i32": ("44", 4, lambda a, b: max(s32(a), s32(b)), lambda r, a, b: s32(a) > s32(b)),
    "s_min_u32": ("44", 4, min, lambda r, a, b: a < b),
    "s_max_u32": ("44", 4, max, lambda r, a, b: a > b),
    "s_and_b32": ("44", 4, lambda a, b: a & b, nonzero),
    "s_and_b64": ("88", 8, lambda a, b: a & b, nonzero),
    "s_or_b32": ("44", 4, lambda a, b: a | b, nonzero),
    "s_or_b64": ("88", 8, lambda a, b: a | b, nonzero),
    "s_xor_b32": ("44", 4, lambda a, b: a ^ b, nonzero),
    "s_xor_b64": ("88", 8, lambda a, b: a ^ b, nonzero),
    "s_nor_b32": ("44", 4, lambda a, b: ~(a | b), nonzero),
    "s_nor_b64": ("88", 8, lambda a, b: ~(a | b), nonzero),
    "s_and_not1_b32": ("44", 4, lambda a, b: a & ~b, nonzero),
    "s_andn2_b64": ("88", 8, lambda a, b: a & ~b, nonzero),
    "s_or_not1_b32": ("44", 4, lambda a, b: a | ~b, nonzero),
    "s_orn2_b64": ("88", 8, lambda a, b: a | ~b, nonzero),
    "s_not_b32": ("4", 4, lambda a: ~a, nonzero),
    "s_not_b64": ("8", 8, lambda a: ~a, nonzero),
    "s_lshl_b32": ("44", 4, lambda a, b: a << b % 32, nonzero),
    "s_lshl_b64": ("84", 8, lambda a, b: a << b % 64, nonzero),
    "s_lshr_b32": ("44", 4, lambda a, b: a >> b % 32, nonzero),
    "s_lshr_b64": ("84", 8, lambda a, b: a >> b % 64, nonzero),
    "s_ashr_i32": ("44", 4, lambda a, b: s32(a) >> b % 32, nonzero),
    "s_ashr_i64": ("84", 8, lambda a, b: s64(a) >> b % 64, nonzero),
    "s_lshl4_add_u32": ("44", 4, lambda a, b: (a << 4) + b, lambda r, a, b: (a << 4) + b > M32),
    "s_lshl2_add_u32": ("44", 4, lambda a, b: (a << 2) + b, lambda r, a, b: (a << 2) + b > M32),
    "s_abs_i32": ("4", 4, lambda a: abs(s32(a)), nonzero),
    "s_brev_b32": ("4", 4, lambda a: int(f"{a:032b}"[::-1], 2), None),
    "s_bcnt1_i32_b32": ("4", 4, lambda a: bin(a).count("1"), nonzero),
    "s_sext_i32_i16": ("4", 4, s16, None),
    "s_cselect_b32": ("44c", 4, lambda a, b, c: a if c else b, None),
    "s_cselect_b64": ("88c", 8, lambda a, b, c: a if c else b, None),
    "s_cvt_f32_u32": ("4", 4, lambda a: rounded(Fraction(a), False) if a else 0, None),
    "s_cvt_u32_f32": ("4", 4, lambda a: truncated(f32(a), 0, M32), None),
    "s_mul_f32": ("44", 4, lambda a, b: b32(f32(a) * f32(b)), None),
    "s_trunc_f32": ("4", 4, lambda a: b32(math.copysign(math.trunc(f32(a)), f32(a)))
                    if math.isfinite(f32(a)) else a, None),
}
for name, function in COMPARE.items():
    for kind in ("u32", "i32", "u64", "f32"):
        if kind == "u64" and name not in ("eq", "lg") or kind != "f32" and name not in (
                "eq", "lg", "lt", "le", "gt", "ge") or kind == "f32" and name == "ne":
            continue
        width, read = TYPES[kind]
        S[f"s_cmp_{name}_{kind}"] = (f"{width}{width}", 0, lambda a, b: 0,
                                     lambda r, a, b, f=function, t=read: f(t(a), t(b)))
S["s_bitcmp0_b32"] = ("44", 0, lambda a, b: 0, lambda r, a, b: not a >> b % 32 & 1)
S["s_bitcmp1_b32"] = ("44", 0, lambda a, b: 0, lambda r, a, b: a >> b % 32 & 1)
for name, function in {"and": lambda s, e: s & e, "or": lambda s, e: s | e,
                       "andn2": lambda s, e: s & ~e, "and_not1": lambda s, e: s & ~e}.items():
    S[f"s_{name}_saveexec_b32"] = ("4", "e4", function, nonzero)
    S[f"s_{name}_saveexec_b64"] = ("8", "e8", function, nonzero)

# Tested by whole kernels, or without an effect on results.
ELSEWHERE = re.compile(
    r"s_(wait|nop|sendmsg|delay_alu|clause|code_end|set_inst_prefetch|branch|cbranch|endpgm|barrier|getpc|"
    r"setpc|swappc)")

EDGES32 = [0, 1, 2, 31, 32, 33, 63, 64, M32, 1 << 31, (1 << 31) - 1, 0xffff, 0x8000, 0x7fff,
           b32(1.0), b32(-1.0), b32(0.5), b32(math.inf), b32(-math.inf), 0x7fc00000, 1 << 31,
           0x00800000, 0x007fffff, 0x7f7fffff, b32(4294967040.0), b32(2147483648.0), b32(-3.5)]
EDGES64 = [0, 1, 63, 64, M64, 1 << 63, (1 << 63) - 1, M32, 1 << 32, b64(1.0), b64(-2.5),
           b64(math.inf), b64(0.1), b64(3e9), b64(-3e9), b64(1e300), b64(1e-300)]


class Tests:
    def __init__(self, program, seed):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.random = random.Random(seed)
        self.stated: set[str] = set()
        self.passed, self.failures = 0, []

    def value(self, size):
        r = self.random
        if size == 8:
            return r.choice([r.choice(EDGES64), r.getrandbits(64),
                             b64(r.uniform(-1e6, 1e6)), r.getrandbits(64) >> r.randrange(64)])
        x = r.choice([r.choice(EDGES32), r.getrandbits(32), b32(r.uniform(-1e3, 1e3)),
                      r.getrandbits(32) >> r.randrange(32)])
        return x & M16 if size == 2 else x

    def step(self, arch, text, v=None, s=None, show=(), scc=0, memory=(), **more):
        line = {"arch": arch, "text": text, "v": v or {}, "s": s or {}, "scc": scc,
                "memory": list(memory), "show": list(show), **more}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def expect(self, what, got, want, same=None):
        if got == want if same is None else same(got, want):
            self.passed += 1
        else:
            self.failures.append(f"{what}: got {got:#x}, not {want:#x}"
                                 if isinstance(got, int) and isinstance(want, int)
                                 else f"{what}: got {got}, not {want}")

    def same(self, size, name):
        if "f32" not in name and "f64" not in name and "f16" not in name:
            return None
        return lambda a, b: a == b or (nan(a, size == 8) and nan(b, size == 8))

    # Registers: sources in v0, v2, v4, the result in v6; of each lane something else.
    def vector(self, arch, name, sources, size, function, same=None):
        lanes = 64 if arch.startswith("gfx9") else 32
        self.stated.add(name)
        columns = []
        for kind in sources:
            n = 4 if kind == "i" else int(kind)
            columns.append([self.value(n) if kind != "i" else self.random.randint(-160, 160) & M32
                            for _ in range(lanes)])
        v, operands = {}, []
        for n, (kind, column) in enumerate(zip(sources, columns)):
            v[str(2 * n)] = [x & M32 for x in column]
            v[str(2 * n + 1)] = [x >> 32 for x in column]
            operands.append(f"v[{2 * n}:{2 * n + 1}]" if kind == "8" else f"v{2 * n}")
        old = self.random.getrandbits(32)
        v["6"] = old
        own = name.startswith(("v_fmac", "v_mac"))
        if own:
            operands.pop()
            v["6"], v["7"] = v["4"], v["5"]
        exec_mask = self.random.getrandbits(lanes)
        to = "v[6:7]" if size == 8 else "v6"
        out = self.step(arch, f"{name} {to}, {', '.join(operands)}", v,
                        {"126": exec_mask & M32, "127": exec_mask >> 32}, show=(6, 7))
        if "error" in out:
            self.failures.append(f"{arch} {name}: {out['error']}")
            return
        for lane in range(lanes):
            got = out["v"]["6"][lane] | (out["v"]["7"][lane] << 32 if size == 8 else 0)
            arguments = [c[lane] for c in columns]
            where = f"{arch} {name} of {', '.join(map(hex, arguments))}"
            if not exec_mask >> lane & 1:
                before = v["6"] if isinstance(v["6"], int) else v["6"][lane]
                self.expect(where + ", a lane that is off", got & M32, before)
                continue
            want = function(*arguments)
            if want is None:
                continue
            want &= (1 << 8 * size) - 1
            if size == 2 and not arch.startswith("gfx9"):  # the other half stays
                want |= old & 0xffff0000
            self.expect(where, got, want, same or self.same(size, name))

    def compare(self, arch, name, kind, function):
        lanes = 64 if arch.startswith("gfx9") else 32
        size, read = TYPES[kind]
        exec_mask = self.random.getrandbits(lanes)
        a = [self.value(size) for _ in range(lanes)]
        b = [x if self.random.random() < 0.3 else self.value(size) for x in a]
        v = {"0": [x & M32 for x in a], "1": [x >> 32 for x in a],
             "2": [x & M32 for x in b], "3": [x >> 32 for x in b]}
        sources = "v[0:1], v[2:3]" if size == 8 else "v0, v2"
        want = sum(1 << n for n in range(lanes)
                   if exec_mask >> n & 1 and function(read(a[n]), read(b[n])))
        for form in ("v_cmp", "v_cmpx"):
            full = f"{form}_{name}_{kind}"
            self.stated.add(full)
            to = "" if form == "v_cmpx" and lanes == 32 else (
                "s[10:11], " if lanes == 64 else "s10, ")
            out = self.step(arch, f"{full} {to}{sources}", v,
                            {"126": exec_mask & M32, "127": exec_mask >> 32})
            at = 126 if form == "v_cmpx" else 10
            got = out["s"][at] | (out["s"][at + 1] << 32 if lanes == 64 else 0)
            self.expect(f"{arch} {full}", got, want)

    def scalar(self, arch, name, sources, size, function, scc):
        self.stated.add(name)
        carry = self.random.getrandbits(1)
        values, s, operands = [], {}, []
        for n, kind in enumerate(sources):
            if kind == "c":
                values.append(carry)
                continue
            values.append(self.value(int(kind)))
            s[str(2 * n)], s[str(2 * n + 1)] = values[-1] & M32, values[-1] >> 32
            operands.append(f"s[{2 * n}:{2 * n + 1}]" if kind == "8" else f"s{2 * n}")
        execs = isinstance(size, str)
        bytes_ = int(size[1]) if execs else size
        if execs:
            before = self.value(bytes_)
            s["126"], s["127"] = before & M32, before >> 32
            values.append(before)
        to = {0: "", 4: "s20, ", 8: "s[20:21], "}[bytes_]
        out = self.step(arch, f"{name} {to}{', '.join(operands)}", s=s, scc=carry)
        if "error" in out:
            self.failures.append(f"{arch} {name}: {out['error']}")
            return
        want = function(*values) & ((1 << 8 * bytes_) - 1 if bytes_ else 0)
        where = f"{arch} {name} of {', '.join(map(hex, values))}"

        def read(at):
            return out["s"][at] | (out["s"][at + 1] << 32 if bytes_ == 8 else 0)
        if execs:
            self.expect(where + ", exec", read(126), want)
            self.expect(where, read(20), before)
        elif bytes_:
            self.expect(where, read(20), want, self.same(bytes_, name))
        expected = carry if scc is None else int(bool(
            scc(want, *values) if scc is not nonzero else want != 0))
        self.expect(where + ", SCC", out["scc"], expected)

    def carries(self, arch):
        lanes = 64 if arch.startswith("gfx9") else 32
        pair = "s[{}:{}]".format if lanes == 64 else lambda a, b: f"s{a}"
        rows = {"v_add_co_u32": (1, 0), "v_addc_co_u32": (1, 1), "v_add_co_ci_u32": (1, 1),
                "v_sub_co_u32": (-1, 0), "v_subb_co_u32": (-1, 1), "v_sub_co_ci_u32": (-1, 1),
                "v_subrev_co_u32": (-2, 0), "v_subbrev_co_u32": (-2, 1),
                "v_subrev_co_ci_u32": (-2, 1)}
        for name, (kind, takes) in rows.items():
            self.stated.add(name)
            a = [self.value(4) for _ in range(lanes)]
            b = [self.value(4) for _ in range(lanes)]
            cin, exec_mask = self.random.getrandbits(lanes), self.random.getrandbits(lanes)
            tail = f", {pair(12, 13)}" if takes else ""
            out = self.step(arch, f"{name} v6, {pair(10, 11)}, v0, v2{tail}", {"0": a, "2": b},
                            {"126": exec_mask & M32, "127": exec_mask >> 32, "12": cin & M32,
                             "13": cin >> 32}, show=(6,))
            carry = out["s"][10] | (out["s"][11] << 32 if lanes == 64 else 0)
            for n in range(lanes):
                if not exec_mask >> n & 1:
                    self.expect(f"{arch} {name}, carry of a lane that is off", carry >> n & 1, 0)
                    continue
                c = cin >> n & 1 if takes else 0
                x = a[n] + b[n] + c if kind == 1 else (
                    a[n] - b[n] - c if kind == -1 else b[n] - a[n] - c)
                self.expect(f"{arch} {name}", out["v"]["6"][n], x & M32)
                self.expect(f"{arch} {name}, carry", carry >> n & 1, int(not 0 <= x <= M32))

    def wide_products(self, arch):
        lanes = 64 if arch.startswith("gfx9") else 32
        to = "s[10:11]" if lanes == 64 else "s10"
        for name, read in (("v_mad_u64_u32", lambda x: x), ("v_mad_co_u64_u32", lambda x: x),
                           ("v_mad_i64_i32", s32), ("v_mad_co_i64_i32", s32)):
            self.stated.add(name)
            a, b = ([self.value(4) for _ in range(lanes)] for _ in "ab")
            c = [self.value(8) for _ in range(lanes)]
            out = self.step(arch, f"{name} v[6:7], {to}, v0, v2, v[4:5]",
                            {"0": a, "2": b, "4": [x & M32 for x in c], "5": [x >> 32 for x in c]},
                            {"126": M32, "127": M32}, show=(6, 7))
            for n in range(lanes):
                got = out["v"]["6"][n] | out["v"]["7"][n] << 32
                self.expect(f"{arch} {name}", got, (read(a[n]) * read(b[n]) + c[n]) & M64)

    def division(self, arch):
        """The four steps that compilers divide by, as a whole: correctly rounded quotients."""
        lanes = 64 if arch.startswith("gfx9") else 32
        pair = "s[10:11]" if lanes == 64 else "s10"
        every = {"126": M32, "127": M32}
        for wide in (False, True):
            t = "f64" if wide else "f32"
            read, write = (f64, b64) if wide else (f32, b32)
            size = 8 if wide else 4
            self.stated |= {f"v_div_scale_{t}", f"v_div_fmas_{t}", f"v_div_fixup_{t}", f"v_rcp_{t}"}
            v = (lambda n: f"v[{n}:{n + 1}]") if wide else (lambda n: f"v{n}")
            columns = [[self.value(size) for _ in range(lanes)] for _ in "nd"]
            # Numerators beside which the denominators are huge: what tanh divides.
            for lane in range(8):
                columns[0][lane] = write(2.0)
                columns[1][lane] = write(2.0 ** self.random.randint(*(900, 1023) if wide else (110, 127))
                                         * self.random.uniform(1, 1.99))
            state = {}
            for reg, column in ((0, columns[0]), (2, columns[1])):
                state[reg], state[reg + 1] = [x & M32 for x in column], [x >> 32 for x in column]
            for reg in range(4, 24):
                state[reg] = [0] * lanes
            state[22] = [b64(1.0) & M32 if wide else b32(1.0)] * lanes
            state[23] = [b64(1.0) >> 32 if wide else 0] * lanes
            vcc = 0

            def go(text):
                nonlocal vcc
                out = self.step(arch, text, {str(k): x for k, x in state.items()},
                                {**every, "106": vcc & M32, "107": vcc >> 32}, show=list(state))
                for k in state:
                    state[k] = out["v"][str(k)]
                return out["s"][10] | (out["s"][11] << 32 if lanes == 64 else 0)
            go(f"v_div_scale_{t} {v(4)}, {pair}, {v(2)}, {v(2)}, {v(0)}")
            vcc = go(f"v_div_scale_{t} {v(6)}, {pair}, {v(0)}, {v(2)}, {v(0)}")
            go(f"v_rcp_{t} {v(8)}, {v(4)}")
            for _ in range(2):  # Newton's steps of the reciprocal
                go(f"v_fma_{t} {v(10)}, -{v(4)}, {v(8)}, {v(22)}")
                go(f"v_fma_{t} {v(8)}, {v(10)}, {v(8)}, {v(8)}")
            go(f"v_mul_{t} {v(12)}, {v(6)}, {v(8)}")
            go(f"v_fma_{t} {v(14)}, -{v(4)}, {v(12)}, {v(6)}")
            if not wide:
                go(f"v_fma_{t} {v(12)}, {v(14)}, {v(8)}, {v(12)}")
                go(f"v_fma_{t} {v(14)}, -{v(4)}, {v(12)}, {v(6)}")
            go(f"v_div_fmas_{t} {v(16)}, {v(14)}, {v(8)}, {v(12)}")
            go(f"v_div_fixup_{t} {v(18)}, {v(16)}, {v(2)}, {v(0)}")
            for n in range(lanes):
                a, b = read(columns[0][n]), read(columns[1][n])
                got = state[18][n] | (state[19][n] << 32 if wide else 0)
                if a != a or b != b or (a == 0 and b == 0) or (math.isinf(a) and math.isinf(b)):
                    want = write(math.nan)
                elif b == 0 or math.isinf(a) or math.isinf(b):
                    sign = math.copysign(1, a) * math.copysign(1, b)
                    want = write(math.copysign(0.0 if math.isinf(b) else math.inf, sign))
                elif a == 0:
                    want = write(math.copysign(0.0, math.copysign(1, a) * math.copysign(1, b)))
                else:
                    want = rounded(Fraction(a) / Fraction(b), wide)
                    tiny = abs(read(want)) < (2.0 ** -1022 if wide else 2.0 ** -126)
                    if tiny:  # rounded twice at the end
                        self.expect(f"{arch} {a} / {b} in {t}", int(abs(
                            (s64 if wide else s32)(got) - (s64 if wide else s32)(want)) <= 1), 1)
                        continue
                self.expect(f"{arch} {a!r} / {b!r} in {t}", got, want,
                            lambda x, y: x == y or (nan(x, wide) and nan(y, wide)))

    def lanes_and_packs(self, arch):
        gfx9 = arch.startswith("gfx9")
        lanes = 64 if gfx9 else 32
        every = {"126": M32, "127": M32}
        a, b = ([self.value(4) for _ in range(lanes)] for _ in "ab")
        r = self.random
        # Shuffles
        self.stated |= {"ds_bpermute_b32", "v_readlane_b32", "v_writelane_b32",
                        "v_readfirstlane_b32", "v_mbcnt_lo_u32_b32", "v_mbcnt_hi_u32_b32",
                        "v_movrels_b32", "v_movreld_b32"}
        where = [r.randrange(lanes) for _ in range(lanes)]
        exec_mask = r.getrandbits(lanes) | 1
        out = self.step(arch, "ds_bpermute_b32 v6, v0, v2", {"0": [4 * x for x in where], "2": b,
                                                             "6": 7},
                        {"126": exec_mask & M32, "127": exec_mask >> 32}, show=(6,))
        for n in range(lanes):
            want = 7 if not exec_mask >> n & 1 else b[where[n]] if exec_mask >> where[n] & 1 else 0
            self.expect(f"{arch} ds_bpermute_b32", out["v"]["6"][n], want)
        if gfx9:  # the accumulation registers, which the interpreter numbers from 256 on
            self.stated |= {"v_accvgpr_read_b32", "v_accvgpr_write_b32"}
            for text, source, to in (("v_accvgpr_read_b32 v6, a5", 261, 6),
                                     ("v_accvgpr_write_b32 a5, v6", 6, 261)):
                out = self.step(arch, text, {str(source): a, str(to): 7},
                                {"126": exec_mask & M32, "127": exec_mask >> 32}, show=(to,))
                self.expect(f"{arch} {text}", out["v"][str(to)],
                            [a[n] if exec_mask >> n & 1 else 7 for n in range(lanes)])
        n = r.randrange(lanes)
        self.expect(f"{arch} v_readlane_b32", self.step(
            arch, f"v_readlane_b32 s8, v0, {n}", {"0": a}, every)["s"][8], a[n])
        out = self.step(arch, f"v_writelane_b32 v6, s3, {n}", {"6": a}, {"3": 77}, show=(6,))
        self.expect(f"{arch} v_writelane_b32", out["v"]["6"], a[:n] + [77] + a[n + 1:])
        low = (exec_mask & -exec_mask).bit_length() - 1
        self.expect(f"{arch} v_readfirstlane_b32", self.step(
            arch, "v_readfirstlane_b32 s8, v0", {"0": a},
            {"126": exec_mask & M32, "127": exec_mask >> 32})["s"][8], a[low])
        mask = r.getrandbits(64)
        out = self.step(arch, "v_mbcnt_lo_u32_b32 v6, s2, v0", {"0": a}, {**every, "2": mask & M32},
                        show=(6,))
        high = self.step(arch, "v_mbcnt_hi_u32_b32 v6, s2, v0", {"0": a},
                         {**every, "2": mask >> 32}, show=(6,))
        for n in range(lanes):
            before = (1 << n) - 1
            self.expect(f"{arch} v_mbcnt_lo", out["v"]["6"][n],
                        bin(mask & before & M32).count("1") + a[n] & M32)
            self.expect(f"{arch} v_mbcnt_hi", high["v"]["6"][n],
                        bin((mask & before) >> 32).count("1") + a[n] & M32)
        out = self.step(arch, "v_movrels_b32 v6, v0", {"2": a}, {**every, "124": 2}, show=(6,))
        self.expect(f"{arch} v_movrels_b32", out["v"]["6"], a)
        out = self.step(arch, "v_movreld_b32 v6, v0", {"0": a}, {**every, "124": 3}, show=(9,))
        self.expect(f"{arch} v_movreld_b32", out["v"]["9"], a)
        # Choices
        self.stated |= {"v_cndmask_b32", "v_cndmask_b16", "v_bitop3_b32", "v_bitop3_b16"}
        pick = r.getrandbits(lanes)
        vcc = {"106": pick & M32, "107": pick >> 32}
        out = self.step(arch, "v_cndmask_b32 v6, v0, v2, " + ("vcc" if gfx9 else "vcc_lo"),
                        {"0": a, "2": b}, {**every, **vcc}, show=(6,))
        self.expect(f"{arch} v_cndmask_b32", out["v"]["6"],
                    [y if pick >> n & 1 else x for n, (x, y) in enumerate(zip(a, b))])
        if not gfx9:
            out = self.step(arch, "v_cndmask_b16 v6.h, v0.l, v2.h, vcc_lo",
                            {"0": a, "2": b, "6": 0x1234}, {**every, **vcc}, show=(6,))
            self.expect(f"{arch} v_cndmask_b16", out["v"]["6"], [
                (y >> 16 if pick >> n & 1 else x & M16) << 16 | 0x1234
                for n, (x, y) in enumerate(zip(a, b))])
        table = r.randrange(256)
        for name, width in (("v_bitop3_b32", 32), ("v_bitop3_b16", 16)):
            out = self.step(arch, f"{name} v6, v0, v2, v4 bitop3:{table:#x}",
                            {"0": a, "2": b, "4": a[::-1], "6": 0}, every, show=(6,))
            for n in range(lanes):
                want = sum((table >> ((a[n] >> bit & 1) << 2 | (b[n] >> bit & 1) << 1 |
                                      a[lanes - 1 - n] >> bit & 1) & 1) << bit
                           for bit in range(width))
                self.expect(f"{arch} {name}", out["v"]["6"][n], want)
        # Pairs of floats
        values = {str(n): [b32(r.uniform(-9, 9)) for _ in range(lanes)] for n in range(6)}
        for name, count, f in (("v_pk_add_f32", 2, lambda x, y: fma(x, 1.0, y)),
                               ("v_pk_mul_f32", 2, lambda x, y: b32(x * y)),
                               ("v_pk_fma_f32", 3, fma)):
            self.stated.add(name)
            sel = [r.getrandbits(1) for _ in range(count)]
            sel_hi = [r.getrandbits(1) for _ in range(count)]
            neg = [r.getrandbits(1) for _ in range(count)]
            text = (f"{name} v[6:7], " + ", ".join(f"v[{2 * n}:{2 * n + 1}]" for n in range(count)) +
                    f" op_sel:{json.dumps(sel)} op_sel_hi:{json.dumps(sel_hi)}"
                    f" neg_lo:{json.dumps(neg)}").replace(", ", ",").replace(",v[", ", v[")
            out = self.step(arch, text, values, every, show=(6, 7))
            for n in range(lanes):
                for upper, chosen in ((0, sel), (1, sel_hi)):
                    x = [f32(values[str(2 * k + chosen[k])][n]) * (-1 if upper == 0 and neg[k] else 1)
                         for k in range(count)]
                    self.expect(f"{arch} {text}", out["v"][str(6 + upper)][n], f(*x))
        self.stated.add("v_fma_mixlo_f16")  # of sources in 32 bits
        out = self.step(arch, "v_fma_mixlo_f16 v6, -v0, v2, |v4|", {**values, "6": 0x12345678}, every,
                        show=(6,))
        self.expect(f"{arch} v_fma_mixlo_f16", out["v"]["6"],
                    [0x12340000 | half(f32(fma(-f32(x), f32(y), abs(f32(z)))))
                     for x, y, z in zip(values["0"], values["2"], values["4"])])
        self.stated.add("v_pk_mov_b32")
        out = self.step(arch, "v_pk_mov_b32 v[6:7], v[0:1], v[2:3] op_sel:[1,0]", values, every,
                        show=(6, 7))
        self.expect(f"{arch} v_pk_mov_b32", (out["v"]["6"], out["v"]["7"]), (values["1"], values["2"]))
        # With a literal
        self.stated |= {"v_fmaak_f32", "v_fmamk_f32", "v_madmk_f32", "s_fmac_f32", "s_movk_i32",
                        "s_addk_i32", "s_addk_co_i32", "s_mulk_i32", "v_s_rcp_f32", "v_cmp_class_f32"}
        out = self.step(arch, "v_fmaak_f32 v6, v0, v2, 0x3e088889", values, every, show=(6,))
        k = f32(0x3e088889)
        self.expect(f"{arch} v_fmaak_f32", out["v"]["6"],
                    [fma(f32(x), f32(y), k) for x, y in zip(values["0"], values["2"])])
        out = self.step(arch, "v_fmamk_f32 v6, v0, 0x3e088889, v2", values, every, show=(6,))
        self.expect(f"{arch} v_fmamk_f32", out["v"]["6"],
                    [fma(f32(x), k, f32(y)) for x, y in zip(values["0"], values["2"])])
        out = self.step(arch, "v_madmk_f32 v6, v0, 0x3e088889, v2", values, every, show=(6,))
        self.expect(f"{arch} v_madmk_f32", out["v"]["6"],
                    [b32(f32(b32(f32(x) * k)) + f32(y)) for x, y in zip(values["0"], values["2"])])
        x, y, z = (b32(r.uniform(-9, 9)) for _ in "xyz")
        out = self.step(arch, "s_fmac_f32 s6, s0, s2", s={"0": x, "2": y, "6": z})
        self.expect(f"{arch} s_fmac_f32", out["s"][6], fma(f32(x), f32(y), f32(z)))
        self.expect(f"{arch} s_movk_i32",
                    self.step(arch, "s_movk_i32 s6, 0xfffe")["s"][6], 0xfffffffe)
        for name in ("s_addk_i32", "s_addk_co_i32"):  # the latter is gfx12's name
            out = self.step(arch, f"{name} s6, 0xfff0", s={"6": 8})
            self.expect(f"{arch} {name}", (out["s"][6], out["scc"]), (0xfffffff8, 0))
        self.expect(f"{arch} s_mulk_i32",
                    self.step(arch, "s_mulk_i32 s6, 0xfffd", s={"6": 8})["s"][6], 0xffffffe8)
        # One of ten classes, by bits of the second source: NaNs that signal and others, then from
        # -inf to +inf: normal, subnormal, 0.
        kinds = [0x7fa00000, 0xffc00000, 0xff800000, 0xbf800000, 0x80000001, 0x80000000, 0, 0x7fffff,
                 0x7f7fffff, 0x7f800000]
        chosen = [r.randrange(10) for _ in range(lanes)]
        asked = [r.getrandbits(10) for _ in range(lanes)]
        to = "s[10:11]" if lanes == 64 else "s10"
        out = self.step(arch, f"v_cmp_class_f32 {to}, v0, v2",
                        {"0": [kinds[n] for n in chosen], "2": asked}, every)
        self.expect(f"{arch} v_cmp_class_f32",
                    out["s"][10] | (out["s"][11] << 32 if lanes == 64 else 0),
                    sum(1 << n for n in range(lanes) if asked[n] >> chosen[n] & 1))
        self.expect(f"{arch} v_s_rcp_f32", self.step(
            arch, "v_s_rcp_f32 s6, s0", s={"0": b32(4.0)})["s"][6], b32(0.25))
        # Modifiers of operands and results
        out = self.step(arch, "v_fma_f32 v6, -v0, |v2|, v4 mul:2", values, every, show=(6,))
        self.expect(f"{arch} -x, |x|, mul:2", out["v"]["6"], [
            b32(2 * f32(fma(-f32(x), abs(f32(y)), f32(z))))
            for x, y, z in zip(values["0"], values["2"], values["4"])])
        out = self.step(arch, "v_mul_f32 v6, v0, v2 clamp", values, every, show=(6,))
        self.expect(f"{arch} clamp", out["v"]["6"], [
            b32(min(1.0, max(0.0, f32(b32(f32(x) * f32(y))))))
            for x, y in zip(values["0"], values["2"])])
        for op, want in (("v_sub_nc_u32", lambda x, y: max(0, x - y)),
                         ("v_add_nc_u32", lambda x, y: min(M32, x + y))):
            out = self.step(arch, f"{op} v6, v0, v2 clamp", {"0": a, "2": b}, every, show=(6,))
            self.expect(f"{arch} {op} clamp", out["v"]["6"], [want(x, y) for x, y in zip(a, b)])
        out = self.step(arch, "v_dual_mov_b32 v6, v0 :: v_dual_add_f32 v8, v2, v4", values, every,
                        show=(6, 8))
        self.expect(f"{arch} dual", (out["v"]["6"], out["v"]["8"]), (
            values["0"], [fma(f32(x), 1.0, f32(y)) for x, y in zip(values["2"], values["4"])]))
        if gfx9:
            part = {"WORD_0": lambda x: x & M16, "WORD_1": lambda x: x >> 16,
                    "BYTE_0": lambda x: x & 255, "BYTE_3": lambda x: x >> 24}
            for sel, f in part.items():
                out = self.step(arch, f"v_or_b32_sdwa v6, v0, v2 dst_sel:DWORD "
                                f"dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:{sel}",
                                {"0": a, "2": b}, every, show=(6,))
                self.expect(f"{arch} src1_sel:{sel}", out["v"]["6"],
                            [x | f(y) for x, y in zip(a, b)])
            out = self.step(arch, "v_cvt_f32_i32_sdwa v6, sext(v0) dst_sel:DWORD "
                            "dst_unused:UNUSED_PAD src0_sel:WORD_0", {"0": a}, every, show=(6,))
            self.expect(f"{arch} sext", out["v"]["6"], [b32(float(s16(x))) for x in a])
            out = self.step(arch, "v_add_u32_sdwa v6, v0, v2 dst_sel:WORD_1 "
                            "dst_unused:UNUSED_PRESERVE src0_sel:DWORD src1_sel:DWORD",
                            {"0": a, "2": b, "6": 0x5678}, every, show=(6,))
            self.expect(f"{arch} dst_sel", out["v"]["6"],
                        [(x + y & M16) << 16 | 0x5678 for x, y in zip(a, b)])
            dpp = {"quad_perm:[1,0,3,2]": lambda n: n ^ 1, "row_shr:1": lambda n: n - 1
                   if n % 16 else None, "row_ror:4": lambda n: n & ~15 | (n - 4) % 16,
                   "row_half_mirror": lambda n: n & ~7 | 7 - n % 8,
                   "row_mirror": lambda n: n & ~15 | 15 - n % 16,
                   "row_bcast:15": lambda n: n // 16 * 16 - 1 if n >= 16 else None,
                   "row_bcast:31": lambda n: 31 if n >= 32 else None}
            for control, source in dpp.items():
                out = self.step(arch, f"v_mov_b32_dpp v6, v0 {control} row_mask:0xf bank_mask:0xf",
                                {"0": a, "6": 5}, every, show=(6,))
                self.expect(f"{arch} {control}", out["v"]["6"], [
                    5 if source(n) is None else a[source(n)] for n in range(lanes)])

    def two_addresses(self, arch):
        """Instructions that read or write LDS at two places, each by an offset in elements."""
        gfx9 = arch.startswith("gfx9")
        lanes = 64 if gfx9 else 32
        memory = [self.random.randrange(256) for _ in range(1024)]
        on = {"126": 7, "127": 0}  # three lanes, so that stores do not meet
        for size in (4, 8):
            for stride in (1, 64):
                if stride * size > 256:
                    continue
                some = "st64" if stride == 64 else ""
                more = "_stride64" if stride == 64 else ""
                first, second = (0, 2) if stride == 64 else (9, 3)
                places = [first * stride * size, second * stride * size]
                at = [16 * (n % 3) for n in range(lanes)]
                name = f"ds_read2{some}_b{8 * size}" if gfx9 else f"ds_load_2addr{more}_b{8 * size}"
                self.stated.add(name)
                to = f"v[10:{9 + 2 * size // 4}]"
                where = f"offset0:{first} offset1:{second}"
                out = self.step(arch, f"{name} {to}, v0 {where}", {"0": at}, on,
                                show=range(10, 14), memory=memory)
                words = size // 4
                for n in range(3):
                    for k in range(2 * words):
                        begin = at[n] + places[k // words] + 4 * (k % words)
                        self.expect(f"{arch} {name}", out["v"][str(10 + k)][n],
                                    int.from_bytes(bytes(memory[begin:begin + 4]), "little"))
                name = f"ds_write2{some}_b{8 * size}" if gfx9 else f"ds_store_2addr{more}_b{8 * size}"
                self.stated.add(name)
                data = {str(n): [self.value(4) for _ in range(lanes)] for n in range(10, 14)}
                sources = "v10, v11" if words == 1 else "v[10:11], v[12:13]"
                out = self.step(arch, f"{name} v0, {sources} {where}", {**data, "0": at}, on,
                                memory=memory)
                want = list(memory)
                for n in range(3):
                    for k in range(2 * words):
                        begin = at[n] + places[k // words] + 4 * (k % words)
                        want[begin:begin + 4] = list(data[str(10 + k)][n].to_bytes(4, "little"))
                self.expect(f"{arch} {name}", out["lds"], want)

    def memory(self, arch):
        gfx9 = arch.startswith("gfx9")
        lanes = 64 if gfx9 else 32
        r = self.random
        every = {"126": M32, "127": M32}
        memory = [r.randrange(256) for _ in range(64)]
        offsets = [r.randrange(12) * 4 for _ in range(lanes)]

        def word(at, n=4, signed=False):
            return int.from_bytes(bytes(memory[at:at + n]), "little", signed=signed) & M32
        loads = {}
        for old, new, n in (("dword", "b32", 1), ("dwordx2", "b64", 2), ("dwordx3", "b96", 3),
                            ("dwordx4", "b128", 4)):
            loads[old] = loads[new] = (lambda at, k, _: word(at + 4 * k), n)
        for old, new, size, signed in (("ubyte", "u8", 1, False), ("sbyte", "i8", 1, True),
                                       ("ushort", "u16", 2, False), ("sshort", "i16", 2, True)):
            loads[old] = loads[new] = (
                lambda at, k, _, size=size, signed=signed: word(at, size, signed), 1)
        keep = 0xabcd1234
        loads["d16_b16"] = (lambda at, k, _: word(at, 2) | 0xabcd0000, 1)
        loads["d16_u8"] = (lambda at, k, _: word(at, 1) | 0xabcd0000, 1)
        loads["d16_i8"] = (lambda at, k, _: word(at, 1, True) & M16 | 0xabcd0000, 1)
        loads["d16_hi_u8"] = (lambda at, k, _: word(at, 1) << 16 | 0x1234, 1)
        for suffix, (want, count) in loads.items():
            to = f"v[10:{9 + count}]" if count > 1 else "v10"
            before = {str(n): keep for n in range(10, 14)}
            for space in ("flat", "global", "scratch", "buffer", "ds"):
                name = f"{space}_load_{suffix}"
                if space == "ds":
                    if not re.match(r"b\d", suffix) and suffix != "u16":
                        continue
                    name = ("ds_read_" if gfx9 else "ds_load_") + suffix
                self.stated.add(name)
                more = {"base_v": 0, "offsets": offsets}
                v = dict(before)
                if space in ("flat", "global"):
                    text = f"{name} {to}, v[0:1]" + (", off" if space == "global" else "")
                else:
                    more = {}
                    v["0"] = offsets
                    text = f"{name} {to}, v0" + (", off" if space == "scratch" else "")
                s = dict(every)
                if space == "buffer":  # private memory, of gfx90a
                    text = f"{name} {to}, v0, s[0:3], 0 offen"
                    s |= {"0": 0, "1": 1 << 31, "2": 0, "3": 0}
                out = self.step(arch, text + " offset:4", v, s, show=range(10, 14), memory=memory,
                                **more)
                if "error" in out:
                    self.failures.append(f"{arch} {text}: {out['error']}")
                    continue
                for n in range(lanes):
                    for k in range(count):
                        self.expect(f"{arch} {name}", out["v"][str(10 + k)][n],
                                    want(offsets[n] + 4, k, keep))
        # Stores: each lane to a place of its own. The first lanes only: there are 64 bytes.
        data = {str(n): [self.value(4) for _ in range(lanes)] for n in range(10, 14)}
        stores = {"dword": (0, 4), "b32": (0, 4), "dwordx2": (0, 8), "b64": (0, 8),
                  "dwordx3": (0, 12), "b96": (0, 12), "dwordx4": (0, 16), "b128": (0, 16),
                  "byte": (0, 1), "b8": (0, 1), "short": (0, 2), "b16": (0, 2),
                  "d16_hi_b8": (16, 1), "d16_hi_b16": (16, 2)}
        for suffix, (shift, size) in stores.items():
            some = 48 // max(size, 4)
            on = {"126": (1 << some) - 1 & M32, "127": 0}
            places = [max(size, 4) * (n % some) for n in range(lanes)]
            register = f"v[10:{9 + size // 4}]" if size > 4 else "v10"
            want = list(memory)
            for n in range(some):
                bits = sum(data[str(10 + k)][n] << 32 * k for k in range(4)) >> shift
                want[places[n]:places[n] + size] = list((bits & (1 << 8 * size) - 1)
                                                        .to_bytes(size, "little"))
            for space in ("flat", "global", "saddr", "scratch", "buffer", "ds"):
                name = f"{'global' if space == 'saddr' else space}_store_{suffix}"
                if space == "ds":
                    if not re.match(r"b\d", suffix):
                        continue
                    name = ("ds_write_" if gfx9 else "ds_store_") + suffix
                self.stated.add(name)
                more, v, s = {}, {**data, "0": places}, dict(on)
                if space in ("flat", "global"):
                    more = {"base_v": 0, "offsets": places}
                    text = f"{name} v[0:1], {register}" + (", off" if space == "global" else "")
                elif space == "saddr":
                    more = {"base_s": 4}
                    text = f"{name} v0, {register}, s[4:5]"
                elif space == "scratch":
                    text = f"{name} v0, {register}, off"
                elif space == "buffer":
                    text = f"{name} {register}, v0, s[0:3], 0 offen"
                    s |= {"0": 0, "1": 1 << 31, "2": 0, "3": 0}
                else:
                    text = f"{name} v0, {register}"
                out = self.step(arch, text, v, s, memory=memory, **more)
                if "error" in out:
                    self.failures.append(f"{arch} {text}: {out['error']}")
                    continue
                if space in ("scratch", "buffer"):  # lane 0's
                    bits = sum(data[str(10 + k)][0] << 32 * k for k in range(4)) >> shift
                    alone = list(memory)
                    alone[:size] = list((bits & (1 << 8 * size) - 1).to_bytes(size, "little"))
                    self.expect(f"{arch} {name}", out["scratch"], alone)
                else:
                    got = out["lds"] if space == "ds" else out["memory"]
                    self.expect(f"{arch} {name}", got[:64], want)
        want = list(memory)
        for n in range(lanes):
            x = int.from_bytes(bytes(want[offsets[n]:offsets[n] + 4]), "little") | data["10"][n]
            want[offsets[n]:offsets[n] + 4] = list(x.to_bytes(4, "little"))
        for name in ("flat_atomic_or", "flat_atomic_or_b32"):
            self.stated.add(name)
            out = self.step(arch, f"{name} v[0:1], v10", data, every, memory=memory, base_v=0,
                            offsets=offsets)
            self.expect(f"{arch} {name}", out["memory"][:64], want)
        self.stated.add("ds_or_b32")
        out = self.step(arch, "ds_or_b32 v0, v10", {**data, "0": offsets}, every, memory=memory)
        self.expect(f"{arch} ds_or_b32", out["lds"][:64], want)
        for n, names in {1: ("dword", "b32"), 2: ("dwordx2", "b64"), 3: ("b96",),
                         4: ("dwordx4", "b128"), 8: ("dwordx8", "b256"),
                         16: ("dwordx16", "b512")}.items():
            for suffix in names:
                self.stated.add(f"s_load_{suffix}")
                to = f"s[20:{19 + n}]" if n > 1 else "s20"
                at = 0 if n == 16 else 8
                out = self.step(arch, f"s_load_{suffix} {to}, s[4:5], {at:#x}", memory=memory,
                                base_s=4)
                self.expect(f"{arch} s_load_{suffix}", out["s"][20:20 + n],
                            [word(at + 4 * k) for k in range(n)])
        self.two_addresses(arch)
        # What must be refused.
        for text, more in (("global_load_dword v10, v[0:1], off", {"base_v": 0,
                            "offsets": [256] * lanes}),
                           ("flat_store_dword v[0:1], v10", {"base_v": 0,
                            "offsets": [254] * lanes}),
                           ("ds_read_b32 v10, v2", {}), ("scratch_load_dword v10, v2, off", {})):
            out = self.step(arch, text, {"2": 1000, "10": 0}, every, **more)
            self.expect(f"{arch} {text} out of bounds is a fault", "error" in out, True)

    def matrices(self, arch):
        """The product of whole matrices, put into lanes and taken out again."""
        r, lanes = self.random, 64 if arch.startswith("gfx9") else 32
        # Name; side; depth; lane and element of A(row, k) and B(k, column); register of D(row, column).
        if lanes == 64:
            def mfma(side, depth):
                share = depth * side // 64

                def place(n, k):
                    return [(n + side * (k // share), k % share)]

                def result(row, column):
                    if side == 16:
                        return column + 16 * (row // 4), row % 4
                    return column + 32 * (row // 4 % 2), row // 8 * 4 + row % 4
                return side, depth, place, result
            half, brain = ("f16", "bf16_1k") if arch == "gfx90a" else ("_f16", "_bf16")
            forms = [(f"v_mfma_f32_16x16x16{half}", "f16", *mfma(16, 16)),
                     (f"v_mfma_f32_16x16x16{brain}", "bf16", *mfma(16, 16)),
                     (f"v_mfma_f32_32x32x8{half}", "f16", *mfma(32, 8)),
                     (f"v_mfma_f32_32x32x8{brain}", "bf16", *mfma(32, 8))]
            if arch == "gfx950":
                forms += [("v_mfma_f32_16x16x32_f16", "f16", *mfma(16, 32)),
                          ("v_mfma_f32_16x16x32_bf16", "bf16", *mfma(16, 32))]
        elif arch == "gfx1100":
            def both(n, k):
                return [(n, k), (n + 16, k)]
            forms = [(f"v_wmma_f32_16x16x16_{t}", t, 16, 16, both,
                      lambda row, column: (column + 16 * (row % 2), row // 2))
                     for t in ("f16", "bf16")]
        else:
            forms = [(f"v_wmma_f32_16x16x16_{t}", t, 16, 16,
                      lambda n, k: [(n + 16 * (k // 8), k % 8)],
                      lambda row, column: (column + 16 * (row // 8), row % 8))
                     for t in ("f16", "bf16")]
        for name, t, side, depth, place, result in forms:
            self.stated.add(name)
            # Small whole numbers: every sum is exact.
            a = [[r.randint(-8, 8) for _ in range(depth)] for _ in range(side)]
            b = [[r.randint(-8, 8) for _ in range(side)] for _ in range(depth)]
            c = [[r.randint(-99, 99) for _ in range(side)] for _ in range(side)]

            def bits(x):
                return b32(float(x)) >> 16 if t == "bf16" else struct.unpack(
                    "<H", struct.pack("<e", float(x)))[0]
            operands = [[[0] * lanes for _ in range(8)] for _ in "ab"]
            for n in range(side):
                for k in range(depth):
                    for x, value in ((0, a[n][k]), (1, b[k][n])):
                        for lane, e in place(n, k):
                            operands[x][e // 2][lane] |= bits(value) << 16 * (e % 2)
            count = side * side // lanes
            v = {}
            for n in range(8):
                v[str(n)], v[str(8 + n)] = operands[0][n], operands[1][n]
            for n in range(count):
                v[str(16 + n)] = [0] * lanes
            for row in range(side):
                for column in range(side):
                    lane, reg = result(row, column)
                    v[str(16 + reg)][lane] = b32(float(c[row][column]))
            words = len(place(0, 0)) * side * depth // lanes // 2
            to = f"v[16:{15 + count}]"
            out = self.step(arch, f"{name} {to}, v[0:{words - 1}], v[8:{7 + words}], {to}", v,
                            {"126": M32, "127": M32}, show=range(16, 16 + count))
            if "error" in out:
                self.failures.append(f"{arch} {name}: {out['error']}")
                continue
            for row in range(side):
                for column in range(side):
                    lane, reg = result(row, column)
                    want = c[row][column] + sum(a[row][k] * b[k][column] for k in range(depth))
                    self.expect(f"{arch} {name} row {row}, column {column}",
                                out["v"][str(16 + reg)][lane], b32(float(want)))

    def run(self, arch):
        for names, (sources, size, function) in V.items():
            for name in names.split():
                self.vector(arch, name, sources, size, function)
        for names, function in ROUGH.items():
            for name in names.split():
                self.vector(arch, name, "4", 4, lambda a, f=function: flush(b32(
                    f(f32(flush(a))) if not nan(a) else math.nan)), near(2))
        for name, function in COMPARE.items():
            real = name in ("neq", "nlt", "nle", "ngt", "nge", "o", "u", "lg")
            for kind in TYPES:
                if kind.startswith("f") and name == "ne" or not kind.startswith("f") and real:
                    continue
                self.compare(arch, name, kind, function)
        for names, row in S.items():
            for name in names.split():
                for _ in range(8):
                    self.scalar(arch, name, *row)
        self.carries(arch)
        self.wide_products(arch)
        for _ in range(8):
            self.division(arch)
        self.lanes_and_packs(arch)
        self.memory(arch)
        self.matrices(arch)


def in_use(build):
    """Names without suffix of the instructions of all embedded code objects."""
    names = set()
    for path in sorted((build / "kernels/hip").glob("*.hipimage")):
        for data in hip_kernels.unpack(path.read_bytes()).values():
            text = subprocess.run(["llvm-objdump-22", "-d", "-"], input=data, capture_output=True,
                                  check=True).stdout.decode()
            for line in text.splitlines():
                if line.startswith("\t") and "//" in line:
                    for part in line.split("//")[0].split("::"):
                        name = re.sub(r"_(e64_dpp|sdwa|e32|e64|dpp)$", "", part.split()[0])
                        names.add(name.replace("v_dual_", "v_"))
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=pathlib.Path, help="hip-sim-step")
    parser.add_argument("build", type=pathlib.Path, help="the build folder, with embedded images")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    tests = Tests(arguments.program, arguments.seed)
    for arch in ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"):
        tests.run(arch)
    missing = {name for name in in_use(arguments.build) - tests.stated
               if not ELSEWHERE.match(name)}
    tests.failures += [f"{name} is in use, and stated nowhere here" for name in sorted(missing)]
    for failure in tests.failures[:50]:
        print("FAILED", failure)
    print(f"{len(tests.stated)} instructions are stated")
    print(f"{tests.passed} passed, {len(tests.failures)} failed")
    return 1 if tests.failures else 0


if __name__ == "__main__":
    sys.exit(main())
