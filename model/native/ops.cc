// Wraps the kernels as TensorFlow operations. model/native/__init__.py loads them and says what
// they compute.

#include "utils/native/op.h"

#include "kernels.h"
#include "pool.h"

namespace convoy {
namespace {

template <typename T>
constexpr TF_DataType kType = TF_FLOAT;
template <>
constexpr TF_DataType kType<BFloat16> = TF_BFLOAT16;

// Returns whether sums and products of sizes cannot overflow.
bool IsReasonable(const Tensor& tensor) {
  return TF_TensorElementCount(tensor.get()) < (int64_t{1} << 40);
}

// ---- attributes -----------------------------------------------------------------------------

struct Attributes {
  Norm norm;
  Depthwise depthwise;
};

// Reads attributes one after another, and makes the construction fail if one is missing.
class Reader {
 public:
  explicit Reader(TF_OpKernelConstruction* construction)
      : construction_(construction), status_(TF_NewStatus()) {}

  float Float(const char* name) {
    float value = 0;
    if (ok()) TF_OpKernelConstruction_GetAttrFloat(construction_, name, &value, status_.get());
    return value;
  }

  int64_t Int(const char* name, int64_t least, int64_t most) {
    int64_t value = 0;
    if (ok()) TF_OpKernelConstruction_GetAttrInt64(construction_, name, &value, status_.get());
    if (ok() && (value < least || value > most)) {
      const std::string message = std::string(name) + " is out of range";
      TF_SetStatus(status_.get(), TF_INVALID_ARGUMENT, message.c_str());
    }
    return value;
  }

  void* Result(const Attributes& attributes) {
    if (ok()) return new Attributes(attributes);
    TF_OpKernelConstruction_Failure(construction_, status_.get());
    return nullptr;
  }

 private:
  bool ok() const { return TF_GetCode(status_.get()) == TF_OK; }

  TF_OpKernelConstruction* const construction_;
  const Status status_;
};

void* CreateNorm(TF_OpKernelConstruction* construction) {
  Reader reader(construction);
  Attributes attributes;
  attributes.norm.epsilon = reader.Float("epsilon");
  attributes.norm.activation = static_cast<Activation>(reader.Int("activation", 0, 2));
  return reader.Result(attributes);
}

void* CreateDepthwise(TF_OpKernelConstruction* construction) {
  Reader reader(construction);
  Attributes attributes;
  attributes.depthwise.stride = reader.Int("stride", 1, 1 << 20);
  attributes.depthwise.pad_top = reader.Int("pad_top", 0, 1 << 20);
  attributes.depthwise.pad_left = reader.Int("pad_left", 0, 1 << 20);
  return reader.Result(attributes);
}

void Destroy(void* kernel) { delete static_cast<Attributes*>(kernel); }

// ---- batch norm -----------------------------------------------------------------------------

const std::vector<int64_t> kImages = {-1, -1, -1, -1};

std::vector<int64_t> Sides(const Tensor& tensor) {
  std::vector<int64_t> sides(TF_NumDims(tensor.get()));
  for (size_t i = 0; i < sides.size(); ++i) sides[i] = Side(tensor, static_cast<int>(i));
  return sides;
}

// Reads x and what is added per channel or value, for `ComputeNorm` and `ComputeNormalize`.
struct NormInputs {
  NormInputs(Run& run, void* kernel, int statistics)
      : norm(static_cast<const Attributes*>(kernel)->norm), x(run.Input(0, "x", kImages)) {
    if (!run.ok()) return;
    norm.channels = Side(x, 3);
    norm.rows = Side(x, 0) * Side(x, 1) * Side(x, 2);
    gamma = run.Input(1, "gamma", {norm.channels});
    beta = run.Input(2, "beta", {norm.channels});
    const int last = 3 + statistics;
    if (run.inputs() > last + 1) run.Fail("there is one shortcut at most");
    if (run.inputs() == last + 1) shortcut = run.Input(last, "shortcut", Sides(x));
    if (!IsReasonable(x) || norm.rows * norm.channels == 0) run.Fail("x is empty or too large");
  }

  Norm norm;
  Tensor x, gamma = nullptr, beta = nullptr, shortcut = nullptr;
};

template <typename T>
void ComputeNorm(void* kernel, TF_OpKernelContext* context) {
  Run run(context);
  const NormInputs in(run, kernel, 0);
  if (!run.ok()) return;
  const Tensor y = run.Allocate(0, kType<T>, Sides(in.x));
  const Tensor mean = run.Allocate(1, TF_FLOAT, {in.norm.channels});
  const Tensor variance = run.Allocate(2, TF_FLOAT, {in.norm.channels});
  if (!run.ok()) return;
  BestKernels<T>().norm(in.norm, Data<T>(in.x), Data<float>(in.gamma), Data<float>(in.beta),
                        in.shortcut ? Data<T>(in.shortcut) : nullptr, Data<T>(y),
                        Data<float>(mean), Data<float>(variance));
}

template <typename T>
void ComputeNormalize(void* kernel, TF_OpKernelContext* context) {
  Run run(context);
  const NormInputs in(run, kernel, 2);
  if (!run.ok()) return;
  const Tensor mean = run.Input(3, "mean", {in.norm.channels});
  const Tensor variance = run.Input(4, "variance", {in.norm.channels});
  if (!run.ok()) return;
  const Tensor y = run.Allocate(0, kType<T>, Sides(in.x));
  if (!run.ok()) return;
  BestKernels<T>().normalize(in.norm, Data<T>(in.x), Data<float>(in.gamma), Data<float>(in.beta),
                             Data<float>(mean), Data<float>(variance),
                             in.shortcut ? Data<T>(in.shortcut) : nullptr, Data<T>(y));
}

template <typename T>
void ComputeNormGradient(void* kernel, TF_OpKernelContext* context) {
  Run run(context);
  Norm norm = static_cast<const Attributes*>(kernel)->norm;
  std::vector<Tensor> dy;
  dy.push_back(run.Input(0, "dy", kImages));
  if (!run.ok()) return;
  const std::vector<int64_t> sides = Sides(dy[0]);
  norm.channels = sides[3];
  norm.rows = sides[0] * sides[1] * sides[2];
  const Tensor x = run.Input(1, "x", sides);
  const Tensor gamma = run.Input(2, "gamma", {norm.channels});
  const Tensor beta = run.Input(3, "beta", {norm.channels});
  const Tensor mean = run.Input(4, "mean", {norm.channels});
  const Tensor variance = run.Input(5, "variance", {norm.channels});
  if (run.inputs() > 7) return run.Fail("there is one shortcut at most");
  const Tensor shortcut = run.inputs() == 7 ? run.Input(6, "shortcut", sides) : nullptr;
  if (!IsReasonable(x) || norm.rows * norm.channels == 0) run.Fail("dy is empty or too large");
  if (!run.ok()) return;
  // One output takes dy's place: the last use of each of its values comes before that is written.
  const Tensor dx = shortcut ? run.Allocate(0, kType<T>, sides) : run.TakeOver(dy);
  const Tensor dgamma = run.Allocate(1, TF_FLOAT, {norm.channels});
  const Tensor dbeta = run.Allocate(2, TF_FLOAT, {norm.channels});
  const Tensor dshortcut = shortcut ? run.TakeOver(dy, 3) : nullptr;
  if (!run.ok()) return;
  const Tensor& taken = shortcut ? dshortcut : dx;
  BestKernels<T>().norm_gradient(norm, Data<T>(dy[0] ? dy[0] : taken), Data<T>(x),
                                 Data<float>(gamma), Data<float>(beta), Data<float>(mean),
                                 Data<float>(variance), shortcut ? Data<T>(shortcut) : nullptr,
                                 Data<T>(dx), Data<float>(dgamma), Data<float>(dbeta),
                                 dshortcut ? Data<T>(dshortcut) : nullptr);
}

// ---- depthwise convolution ------------------------------------------------------------------

void SetSides(Depthwise& d, const Tensor& x, const Tensor& kernel) {
  d.batch = Side(x, 0), d.in_height = Side(x, 1), d.in_width = Side(x, 2);
  d.channels = Side(x, 3);
  d.kernel_height = Side(kernel, 0), d.kernel_width = Side(kernel, 1);
}

// Returns the error in the sizes, if any. x is 0 outside, but no window is completely outside.
const char* Mistake(const Depthwise& d) {
  if (d.kernel_height < 1 || d.kernel_width < 1 || d.kernel_height * d.kernel_width > 256) {
    return "the kernel has no values or more than 256 a channel";
  }
  const auto outside = [&](int64_t out, int64_t in, int64_t pad) {
    return out < 1 || (out - 1) * d.stride - pad >= in;
  };
  if (d.pad_top >= d.kernel_height || d.pad_left >= d.kernel_width ||
      outside(d.out_height, d.in_height, d.pad_top) ||
      outside(d.out_width, d.in_width, d.pad_left)) {
    return "a window lies outside of the images";
  }
  return nullptr;
}

template <typename T>
void ComputeDepthwiseGradient(void* kernel, TF_OpKernelContext* context) {
  Run run(context);
  Depthwise d = static_cast<const Attributes*>(kernel)->depthwise;
  const Tensor dy = run.Input(0, "dy", kImages);
  if (!run.ok()) return;
  std::vector<Tensor> x;
  x.push_back(run.Input(1, "x", {Side(dy, 0), -1, -1, Side(dy, 3)}));
  const Tensor weights = run.Input(2, "the kernel", {-1, -1, Side(dy, 3), 1});
  if (!run.ok()) return;
  SetSides(d, x[0], weights);
  d.out_height = Side(dy, 1), d.out_width = Side(dy, 2);
  if (const char* mistake = Mistake(d)) return run.Fail(mistake);
  const Tensor dx = run.TakeOver(x, 0, 1);  // x is last read before dx is written
  const Tensor dkernel = run.Allocate(1, kType<T>, Sides(weights));
  if (!run.ok()) return;
  BestKernels<T>().depthwise_gradient(d, Data<T>(dy), Data<T>(x[0] ? x[0] : dx), Data<T>(weights),
                                      Data<T>(dx), Data<T>(dkernel));
}

// ---- squeeze and excitation -----------------------------------------------------------------

Images ImagesOf(const Tensor& x) {
  return {Side(x, 0), Side(x, 1) * Side(x, 2), Side(x, 3)};
}

// Returns the shape with one number per image and channel.
std::vector<int64_t> Pooled(const Tensor& x) { return {Side(x, 0), 1, 1, Side(x, 3)}; }

template <typename T>
void ComputeGate(void*, TF_OpKernelContext* context) {
  Run run(context);
  const Tensor x = run.Input(0, "x", kImages);
  if (!run.ok()) return;
  const Tensor gate = run.Input(1, "gate", Pooled(x));
  if (!run.ok()) return;
  const Tensor y = run.Allocate(0, kType<T>, Sides(x));
  if (!run.ok()) return;
  BestKernels<T>().gate(ImagesOf(x), Data<T>(x), Data<T>(gate), Data<T>(y));
}

template <typename T>
void ComputeGateGradient(void*, TF_OpKernelContext* context) {
  Run run(context);
  std::vector<Tensor> maps;  // dy and x
  maps.push_back(run.Input(0, "dy", kImages));
  if (!run.ok()) return;
  maps.push_back(run.Input(1, "x", Sides(maps[0])));
  if (!run.ok()) return;
  const std::vector<int64_t> pooled = Pooled(maps[0]);
  const Tensor gate = run.Input(2, "gate", pooled);
  if (!run.ok()) return;
  const Tensor dx = run.TakeOver(maps);
  const Tensor dgate = run.Allocate(1, kType<T>, pooled);
  if (!run.ok()) return;
  BestKernels<T>().gate_gradient(ImagesOf(dx), Data<T>(maps[0] ? maps[0] : dx),
                                 Data<T>(maps[1] ? maps[1] : dx), Data<T>(gate), Data<T>(dx),
                                 Data<T>(dgate));
}

template <typename T>
void ComputeSqueeze(void*, TF_OpKernelContext* context) {
  Run run(context);
  const Tensor x = run.Input(0, "x", kImages);
  if (!run.ok()) return;
  if (Side(x, 1) * Side(x, 2) == 0) return run.Fail("x has no pixels");
  const Tensor mean = run.Allocate(0, kType<T>, Pooled(x));
  if (!run.ok()) return;
  BestKernels<T>().squeeze(ImagesOf(x), Data<T>(x), Data<T>(mean));
}

template <typename T>
void ComputeSqueezeGradient(void*, TF_OpKernelContext* context) {
  Run run(context);
  std::vector<Tensor> dmaps;
  dmaps.push_back(run.Input(0, "dmaps", kImages));
  if (!run.ok()) return;
  const Tensor dmean = run.Input(1, "dmean", Pooled(dmaps[0]));
  const Tensor dx = run.TakeOver(dmaps);
  if (!run.ok()) return;
  BestKernels<T>().squeeze_gradient(ImagesOf(dx), Data<T>(dmaps[0] ? dmaps[0] : dx),
                                    Data<T>(dmean), Data<T>(dx));
}

// ---- what goes two ways ---------------------------------------------------------------------

template <typename T>
void ComputeSum(void*, TF_OpKernelContext* context) {
  Run run(context);
  std::vector<Tensor> terms;
  terms.push_back(run.Input(0, "a", kImages));
  if (!run.ok()) return;
  terms.push_back(run.Input(1, "b", Sides(terms[0])));
  const Tensor sum = run.TakeOver(terms);
  if (!run.ok()) return;
  BestKernels<T>().sum(TF_TensorElementCount(sum.get()), Data<T>(terms[0] ? terms[0] : sum),
                       Data<T>(terms[1] ? terms[1] : sum), Data<T>(sum));
}

// ---- registration ---------------------------------------------------------------------------

template <typename T>
void ImplementAll() {
  const TF_DataType type = kType<T>;
  Implement("ConvoyBatchNorm", {CreateNorm, ComputeNorm<T>, Destroy}, &type);
  Implement("ConvoyNormalize", {CreateNorm, ComputeNormalize<T>, Destroy}, &type);
  Implement("ConvoyBatchNormGradient", {CreateNorm, ComputeNormGradient<T>, Destroy}, &type);
  Implement("ConvoyDepthwiseGradient", {CreateDepthwise, ComputeDepthwiseGradient<T>, Destroy},
            &type);
  Implement("ConvoyGate", {nullptr, ComputeGate<T>, nullptr}, &type);
  Implement("ConvoyGateGradient", {nullptr, ComputeGateGradient<T>, nullptr}, &type);
  Implement("ConvoySqueeze", {nullptr, ComputeSqueeze<T>, nullptr}, &type);
  Implement("ConvoySqueezeGradient", {nullptr, ComputeSqueezeGradient<T>, nullptr}, &type);
  Implement("ConvoySum", {nullptr, ComputeSum<T>, nullptr}, &type);
}

[[maybe_unused]] const bool kRegistered = [] {
  const char* const type = "T: {float, bfloat16}";
  const char* const count = "N: int >= 0";  // of shortcuts; the kernels accept at most one
  Define({"ConvoyBatchNorm",
          {"x: T", "gamma: float", "beta: float", "shortcut: N * T"},
          {"y: T", "mean: float", "variance: float"},
          {type, count, "epsilon: float", "activation: int"},
          UnknownShape});
  Define({"ConvoyNormalize",
          {"x: T", "gamma: float", "beta: float", "mean: float", "variance: float",
           "shortcut: N * T"},
          {"y: T"},
          {type, count, "epsilon: float", "activation: int"},
          UnknownShape});
  Define({"ConvoyBatchNormGradient",
          {"dy: T", "x: T", "gamma: float", "beta: float", "mean: float", "variance: float",
           "shortcut: N * T"},
          {"dx: T", "dgamma: float", "dbeta: float", "dshortcut: N * T"},
          {type, count, "epsilon: float", "activation: int"},
          UnknownShape});
  Define({"ConvoyDepthwiseGradient",
          {"dy: T", "x: T", "kernel: T"},
          {"dx: T", "dkernel: T"},
          {type, "stride: int", "pad_top: int", "pad_left: int"},
          UnknownShape});
  Define({"ConvoyGate", {"x: T", "gate: T"}, {"y: T"}, {type}, UnknownShape});
  Define({"ConvoyGateGradient",
          {"dy: T", "x: T", "gate: T"},
          {"dx: T", "dgate: T"},
          {type},
          UnknownShape});
  Define({"ConvoySqueeze", {"x: T"}, {"mean: T"}, {type}, UnknownShape});
  Define({"ConvoySqueezeGradient", {"dmaps: T", "dmean: T"}, {"dx: T"}, {type}, UnknownShape});
  Define({"ConvoySum", {"a: T", "b: T"}, {"sum: T"}, {type}, UnknownShape});
  ImplementAll<float>();
  ImplementAll<BFloat16>();
  return true;
}();

}  // namespace
}  // namespace convoy

// For Python, through ctypes.
extern "C" {
__attribute__((visibility("default"))) void convoy_set_threads(int threads) {
  convoy::SetThreads(threads);
}
__attribute__((visibility("default"))) void convoy_limit_level(int level) {
  convoy::LimitLevel(level);
}
__attribute__((visibility("default"))) bool convoy_has_tiles() { return convoy::HasTiles(); }
__attribute__((visibility("default"))) const char* convoy_level() { return convoy::Level(); }
}
