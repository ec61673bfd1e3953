// Horovod's GPU kernels, for a build without nvcc: see 4-nccl-without-nvcc.patch.
//
// It replaces horovod/common/ops/cuda/cuda_kernels.cu. The kernels below are compiled in each
// process at their first use, by NVRTC, which is among the CUDA packages that TensorFlow brings.
// They only copy tensors into and out of the buffer that is exchanged, and scale them.

#include "cuda_kernels.h"

#include <cuda.h>
#include <nvrtc.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace horovod {
namespace common {
namespace {

const char* const kSource = R"(
typedef unsigned long long Size;
struct Copies { void* out[160]; const void* in[160]; Size sizes[160]; };

// A half is its bits; products are rounded once, from float.
struct Half { unsigned short bits; };

__device__ inline float number(Half x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
}
__device__ inline float number(float x) { return x; }
__device__ inline double number(double x) { return x; }
__device__ inline double number(signed char x) { return x; }
__device__ inline double number(unsigned char x) { return x; }
__device__ inline double number(int x) { return x; }
__device__ inline double number(long long x) { return x; }

__device__ inline void store(Half* to, float value) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
}
template <typename T, typename N>
__device__ inline void store(T* to, N value) { *to = (T)value; }

template <typename T>
__device__ inline void scale(T* out, const T* in, Size n, Size first, Size step, double by) {
  for (Size i = first; i < n; i += step) {
    auto value = number(in[i]);
    store(out + i, value * (decltype(value))by);
  }
}

template <typename Word>
__device__ inline void copy(void* out, const void* in, Size bytes, Size first, Size step) {
  const Size words = bytes / sizeof(Word);
  for (Size i = first; i < words; i += step) ((Word*)out)[i] = ((const Word*)in)[i];
  for (Size i = words * sizeof(Word) + first; i < bytes; i += step)
    ((char*)out)[i] = ((const char*)in)[i];
}

// Eight blocks (gridDim.y) share each copy (blockIdx.x).
extern "C" __global__ void copy_all(Copies c) {
  const Size bytes = c.sizes[blockIdx.x], step = gridDim.y * blockDim.x;
  const Size first = blockIdx.y * blockDim.x + threadIdx.x;
  void* out = c.out[blockIdx.x];
  const void* in = c.in[blockIdx.x];
  const Size places = (Size)out | (Size)in;
  if (places % 16 == 0) copy<ulonglong2>(out, in, bytes, first, step);
  else if (places % 4 == 0) copy<unsigned>(out, in, bytes, first, step);
  else copy<char>(out, in, bytes, first, step);
}

#define FOR_TYPE(NAME, T)                                                                       \
  extern "C" __global__ void copy_all_##NAME(Copies c, double by) {                             \
    const Size first = blockIdx.y * blockDim.x + threadIdx.x;                                   \
    scale((T*)c.out[blockIdx.x], (const T*)c.in[blockIdx.x], c.sizes[blockIdx.x] / sizeof(T),   \
          first, gridDim.y * blockDim.x, by);                                                   \
  }                                                                                             \
  extern "C" __global__ void scale_##NAME(T* out, const T* in, Size n, double by) {             \
    const Size first = (Size)blockIdx.x * blockDim.x + threadIdx.x;                             \
    scale(out, in, n, first, (Size)gridDim.x * blockDim.x, by);                                 \
  }
FOR_TYPE(u8, unsigned char)
FOR_TYPE(i8, signed char)
FOR_TYPE(i32, int)
FOR_TYPE(i64, long long)
FOR_TYPE(f16, Half)
FOR_TYPE(f32, float)
FOR_TYPE(f64, double)
)";

constexpr unsigned kThreads = 512, kBlocksOfCopy = 8, kBlocksOfScale = 4096;

static_assert(BATCHED_D2D_CAPACITY == 160, "Copies in the kernels' source has this size");

[[noreturn]] void Fail(const std::string& what) {
  throw std::runtime_error("Horovod's GPU kernels: " + what);
}

void Check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) Fail(std::string(what) + ": " + cudaGetErrorString(status));
}

void Check(nvrtcResult status, const char* what) {
  if (status != NVRTC_SUCCESS) Fail(std::string(what) + ": " + nvrtcGetErrorString(status));
}

void Check(CUresult status, const char* what) {
  if (status != CUDA_SUCCESS) Fail(std::string(what) + " ended with error " + std::to_string(status));
}

// A function of the driver, found at run time: a machine without a driver can load the library.
template <typename Function> Function Driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status;
  Check(cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &status), name);
  if (found == nullptr) Fail(std::string("the driver has no ") + name);
  return reinterpret_cast<Function>(found);
}

// Compiles for one GPU; machine code, or PTX for a GPU that is newer than this NVRTC.
std::string Compile(int capability) {
  int count = 0;
  Check(nvrtcGetNumSupportedArchs(&count), "nvrtcGetNumSupportedArchs");
  std::vector<int> known(count);
  Check(nvrtcGetSupportedArchs(known.data()), "nvrtcGetSupportedArchs");
  bool exact = false;
  int nearest = 0;
  for (int each : known) {
    exact |= each == capability;
    if (each <= capability && each > nearest) nearest = each;
  }
  const std::string target =
      (exact ? "--gpu-architecture=sm_" : "--gpu-architecture=compute_") +
      std::to_string(exact ? capability : nearest);
  const char* options[] = {target.c_str(), "--std=c++14"};
  nvrtcProgram program;
  Check(nvrtcCreateProgram(&program, kSource, "horovod_kernels.cu", 0, nullptr, nullptr),
        "nvrtcCreateProgram");
  const nvrtcResult result = nvrtcCompileProgram(program, 2, options);
  if (result != NVRTC_SUCCESS) {
    size_t size = 0;
    nvrtcGetProgramLogSize(program, &size);
    std::string log(size, ' ');
    nvrtcGetProgramLog(program, &log[0]);
    nvrtcDestroyProgram(&program);
    Fail(std::string(nvrtcGetErrorString(result)) + ": " + log);
  }
  size_t size = 0;
  Check(exact ? nvrtcGetCUBINSize(program, &size) : nvrtcGetPTXSize(program, &size), "its size");
  std::string code(size, ' ');
  Check(exact ? nvrtcGetCUBIN(program, &code[0]) : nvrtcGetPTX(program, &code[0]), "its code");
  Check(nvrtcDestroyProgram(&program), "nvrtcDestroyProgram");
  return code;
}

// The kernel of a name on the current GPU. Each GPU's module is compiled and loaded once.
CUfunction Kernel(const std::string& name) {
  static std::mutex guard;
  static std::map<int, CUmodule> modules;
  static std::map<std::pair<int, std::string>, CUfunction> kernels;
  std::lock_guard<std::mutex> lock(guard);
  int device = 0;
  Check(cudaGetDevice(&device), "cudaGetDevice");
  const auto key = std::make_pair(device, name);
  const auto found = kernels.find(key);
  if (found != kernels.end()) return found->second;
  if (modules.count(device) == 0) {
    int major = 0, minor = 0;
    Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "major");
    Check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "minor");
    Check(cudaFree(nullptr), "making the context");
    const std::string code = Compile(10 * major + minor);
    static const auto load = Driver<decltype(&cuModuleLoadData)>("cuModuleLoadData");
    Check(load(&modules[device], code.data()), "cuModuleLoadData");
  }
  static const auto get = Driver<decltype(&cuModuleGetFunction)>("cuModuleGetFunction");
  CUfunction kernel;
  Check(get(&kernel, modules[device], name.c_str()), name.c_str());
  return kernels[key] = kernel;
}

void Launch(const std::string& name, dim3 grid, void** arguments, cudaStream_t stream) {
  static const auto launch = Driver<decltype(&cuLaunchKernel)>("cuLaunchKernel");
  const CUfunction kernel = Kernel(name);
  Check(launch(kernel, grid.x, grid.y, 1, kThreads, 1, 1, 0, stream, arguments, nullptr),
        name.c_str());
}

std::string Suffix(DataType dtype) {
  switch (dtype) {
  case HOROVOD_UINT8: return "_u8";
  case HOROVOD_INT8: return "_i8";
  case HOROVOD_INT32: return "_i32";
  case HOROVOD_INT64: return "_i64";
  case HOROVOD_FLOAT16: return "_f16";
  case HOROVOD_FLOAT32: return "_f32";
  case HOROVOD_FLOAT64: return "_f64";
  default: throw std::logic_error("Type " + DataType_Name(dtype) + " cannot be scaled on a GPU.");
  }
}

} // namespace

void BatchedD2DMemcpyCudaImpl(BatchedD2DParams& params, int num_copies, cudaStream_t stream) {
  void* arguments[] = {&params};
  Launch("copy_all", dim3(num_copies, kBlocksOfCopy), arguments, stream);
}

void BatchedScaledD2DMemcpyCudaImpl(BatchedD2DParams& params, int num_copies, double scale_factor,
                                    DataType dtype, cudaStream_t stream) {
  void* arguments[] = {&params, &scale_factor};
  Launch("copy_all" + Suffix(dtype), dim3(num_copies, kBlocksOfCopy), arguments, stream);
}

void ScaleBufferCudaImpl(const void* fused_input_data, void* buffer_data,
                         const int64_t num_elements, double scale_factor, DataType dtype,
                         cudaStream_t stream) {
  if (num_elements == 0) return;
  unsigned long long count = num_elements;
  const unsigned long long blocks = (count + kThreads - 1) / kThreads;
  void* arguments[] = {&buffer_data, &fused_input_data, &count, &scale_factor};
  Launch("scale" + Suffix(dtype), dim3(blocks < kBlocksOfScale ? blocks : kBlocksOfScale, 1),
         arguments, stream);
}

} // namespace common
} // namespace horovod
