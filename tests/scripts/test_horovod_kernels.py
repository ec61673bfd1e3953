"""The kernels of scripts/horovod/cuda_kernels.cc, compiled for the CPU and run thread by thread."""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).resolve().parents[2] / "scripts" / "horovod" / "cuda_kernels.cc"
TYPES = {
    "u8": np.uint8, "i8": np.int8, "i32": np.int32, "i64": np.int64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip
# What CUDA has and C++ lacks, and a loop over all threads of a launch.
BEFORE = """
struct Dim { unsigned x = 1, y = 1; };
static Dim blockIdx, threadIdx, blockDim, gridDim;
struct ulonglong2 { unsigned long long x, y; };
#define __device__
#define __global__
"""
AFTER = """
template <typename Kernel> void launch(unsigned x, unsigned y, unsigned threads, Kernel kernel) {
  gridDim = {x, y}, blockDim = {threads, 1};
  for (blockIdx.y = 0; blockIdx.y < y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < x; ++blockIdx.x)
      for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel();
}
extern "C" void run_copy(const Copies* c, unsigned n) { launch(n, 8, 64, [&] { copy_all(*c); }); }
#define RUN(NAME, T) \\
  extern "C" void run_copy_##NAME(const Copies* c, unsigned n, double by) { \\
    launch(n, 8, 64, [&] { copy_all_##NAME(*c, by); }); \\
  } \\
  extern "C" void run_scale_##NAME(void* out, const void* in, Size n, double by) { \\
    launch(3, 1, 64, [&] { scale_##NAME((T*)out, (const T*)in, n, by); }); \\
  }
RUN(u8, unsigned char) RUN(i8, signed char) RUN(i32, int) RUN(i64, long long)
RUN(f16, Half) RUN(f32, float) RUN(f64, double)
"""


class Copies(ctypes.Structure):
    """The parameter of the kernels that copy."""

    _fields_ = [
        ("out", ctypes.c_void_p * 160),
        ("into", ctypes.c_void_p * 160),
        ("sizes", ctypes.c_uint64 * 160),
    ]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    source = re.search(r'R"\((.*?)\)";', FILE.read_text(), re.S)[1]
    # PTX instructions for half precision become the compiler's own conversions.
    source, n = re.subn(
        r'asm\("cvt\.f32\.f16.*?;\n', "value = *(const _Float16*)&x.bits;\n", source
    )
    source, m = re.subn(
        r'asm\("cvt\.rn\.f16\.f32.*?;\n', "*(_Float16*)&to->bits = (_Float16)value;\n", source
    )
    assert (n, m) == (1, 1)
    (folder / "kernels.cc").write_text(BEFORE + source + AFTER)
    command = ["g++", "-std=c++17", "-O1", "-fno-strict-aliasing", "-shared", "-fPIC"]
    library = folder / "kernels.so"
    subprocess.run([*command, folder / "kernels.cc", "-o", library], check=True, timeout=120)
    return ctypes.CDLL(str(library))


def copies(outs, ins):
    made = Copies()
    for i, (out, into) in enumerate(zip(outs, ins, strict=True)):
        made.out[i], made.into[i], made.sizes[i] = out.ctypes.data, into.ctypes.data, into.nbytes
    return made


# Bytes that fill no word, a few words, and more than the threads of a launch.
@pytest.mark.parametrize("place", [0, 1, 4, 8])
def test_all_tensors_are_copied_whatever_their_size_and_place(kernels, place):
    rng = np.random.default_rng(place)
    ins = [rng.integers(0, 256, n + place, np.uint8)[place:] for n in (0, 1, 15, 16, 1037, 40_003)]
    memory = [np.full(len(data) + 16, 255, np.uint8) for data in ins]
    outs = [whole[: len(data)] for whole, data in zip(memory, ins, strict=True)]
    kernels.run_copy(ctypes.byref(copies(outs, ins)), len(ins))
    for whole, data in zip(memory, ins, strict=True):
        np.testing.assert_array_equal(whole[: len(data)], data)
        assert (whole[len(data) :] == 255).all(), "a byte behind the tensor was written"


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("alone", [True, False])
def test_tensors_are_scaled_and_rounded_once(kernels, name, alone):
    rng, dtype, by = np.random.default_rng(1), TYPES[name], 1 / 3
    ins = [(100 * rng.random(n)).astype(dtype) for n in (1, 7, 129, 5001)]
    outs = [np.zeros_like(data) for data in ins]
    if alone:
        for out, data in zip(outs, ins, strict=True):
            function = getattr(kernels, f"run_scale_{name}")
            pointers = (ctypes.c_void_p(out.ctypes.data), ctypes.c_void_p(data.ctypes.data))
            function(*pointers, ctypes.c_uint64(data.size), ctypes.c_double(by))
    else:
        function = getattr(kernels, f"run_copy_{name}")
        function(ctypes.byref(copies(outs, ins)), len(ins), ctypes.c_double(by))
    within = np.float32 if dtype in (np.float16, np.float32) else np.float64
    for out, data in zip(outs, ins, strict=True):
        np.testing.assert_array_equal(out, (data.astype(within) * within(by)).astype(dtype))
