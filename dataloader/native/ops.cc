// The kernels as TensorFlow operations, through TensorFlow's stable C interface.
//
// ConvoyAugment, ConvoyResize and ConvoyCropWindow run on the CPU, one image each. Whatever shapes
// and numbers come in, they answer with InvalidArgument or with a result. dataloader/native loads
// them and says what they compute.

#include <tensorflow/c/kernels.h>
#include <tensorflow/c/ops.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels.h"

namespace convoy {
namespace {

struct Delete {
  void operator()(TF_Status* status) const { TF_DeleteStatus(status); }
  void operator()(TF_Tensor* tensor) const { TF_DeleteTensor(tensor); }
  void operator()(TF_ShapeHandle* shape) const { TF_DeleteShapeHandle(shape); }
};
using Status = std::unique_ptr<TF_Status, Delete>;
using Tensor = std::unique_ptr<TF_Tensor, Delete>;
using Shape = std::unique_ptr<TF_ShapeHandle, Delete>;

// One run of a kernel: its inputs, its output, and the first thing that went wrong.
class Run {
 public:
  explicit Run(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Run() {
    if (!ok()) TF_OpKernelContext_Failure(context_, status_.get());
  }
  Run(const Run&) = delete;

  bool ok() const { return TF_GetCode(status_.get()) == TF_OK; }

  void Fail(const std::string& message) {
    if (ok()) TF_SetStatus(status_.get(), TF_INVALID_ARGUMENT, message.c_str());
  }

  // Input number `index`, whose dimensions must be `shape`; -1 stands for any.
  Tensor Input(int index, const char* name, std::vector<int64_t> shape) {
    TF_Tensor* tensor = nullptr;
    if (ok()) TF_GetInput(context_, index, &tensor, status_.get());
    if (!ok()) return nullptr;
    bool agrees = TF_NumDims(tensor) == static_cast<int>(shape.size());
    for (size_t i = 0; agrees && i < shape.size(); ++i) {
      agrees = shape[i] == -1 || shape[i] == TF_Dim(tensor, static_cast<int>(i));
    }
    if (!agrees) Fail(std::string(name) + " has the wrong shape");
    return Tensor(tensor);
  }

  // The image's buffer itself if nobody else needs it, else a new one.
  Tensor ForwardOrAllocate(int input, std::vector<int64_t> shape, bool* forwarded) {
    int which = -1;
    Tensor tensor(TF_ForwardInputOrAllocateOutput(context_, &input, 1, 0, shape.data(),
                                                  static_cast<int>(shape.size()), &which,
                                                  status_.get()));
    *forwarded = which == input;
    return tensor;
  }

  Tensor Allocate(TF_DataType type, std::vector<int64_t> shape) {
    size_t bytes = TF_DataTypeSize(type);
    for (int64_t side : shape) bytes *= side;
    return Tensor(TF_AllocateOutput(context_, 0, type, shape.data(),
                                    static_cast<int>(shape.size()), bytes, status_.get()));
  }

 private:
  TF_OpKernelContext* const context_;
  const Status status_;
};

template <typename T>
T* Data(const Tensor& tensor) {
  return static_cast<T*>(TF_TensorData(tensor.get()));
}

Size ImageSize(const Tensor& image) { return {TF_Dim(image.get(), 0), TF_Dim(image.get(), 1)}; }

// ---- ConvoyAugment --------------------------------------------------------------------------

// The operation that each number stands for, from the attribute `names`.
using Numbers = std::vector<Op>;

void* CreateAugment(TF_OpKernelConstruction* construction) {
  const Status status(TF_NewStatus());
  auto numbers = std::make_unique<Numbers>();
  int32_t count = 0, total = 0;
  TF_OpKernelConstruction_GetAttrSize(construction, "names", &count, &total, status.get());
  if (TF_GetCode(status.get()) == TF_OK && count > 0) {
    std::vector<char*> values(count);
    std::vector<size_t> lengths(count);
    std::vector<char> storage(total + 1);
    TF_OpKernelConstruction_GetAttrStringList(construction, "names", values.data(), lengths.data(),
                                              count, storage.data(), storage.size(), status.get());
    for (int i = 0; TF_GetCode(status.get()) == TF_OK && i < count; ++i) {
      numbers->push_back(OpNamed(std::string_view(values[i], lengths[i])));
    }
  }
  if (TF_GetCode(status.get()) != TF_OK) {
    TF_OpKernelConstruction_Failure(construction, status.get());
    return nullptr;
  }
  return numbers.release();
}

void DeleteAugment(void* kernel) { delete static_cast<Numbers*>(kernel); }

std::vector<Step> ReadSteps(Run& run, const Numbers& numbers) {
  const Tensor ops = run.Input(1, "ops", {-1});
  if (!run.ok()) return {};
  const int64_t count = TF_Dim(ops.get(), 0);
  const Tensor arguments = run.Input(2, "arguments", {count});
  const Tensor centres = run.Input(3, "centres", {count, 2});
  if (!run.ok()) return {};
  std::vector<Step> steps(count);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t number = Data<int32_t>(ops)[i];
    if (number < 0 || number >= static_cast<int64_t>(numbers.size())) {
      run.Fail("there is no augmentation number " + std::to_string(number));
      return {};
    }
    const float* centre = Data<float>(centres) + 2 * i;
    steps[i] = {numbers[number], Data<double>(arguments)[i], centre[0], centre[1]};
  }
  return steps;
}

void ComputeAugment(void* kernel, TF_OpKernelContext* context) {
  Run run(context);
  const std::vector<Step> steps = ReadSteps(run, *static_cast<const Numbers*>(kernel));
  Tensor image = run.Input(0, "the image", {-1, -1, 3});
  if (!run.ok()) return;
  const Size size = ImageSize(image);
  image.reset();  // a buffer that is held twice would not be handed on
  bool forwarded = false;
  const Tensor result = run.ForwardOrAllocate(0, {size.height, size.width, 3}, &forwarded);
  if (!forwarded) image = run.Input(0, "the image", {-1, -1, 3});
  if (!run.ok()) return;
  const uint8_t* pixels = Data<uint8_t>(forwarded ? result : image);
  const char* error =
      Augment(pixels, size, steps.data(), steps.size(), Data<uint8_t>(result));
  if (error) run.Fail(error);
}

// ---- ConvoyResize ---------------------------------------------------------------------------

void ComputeResize(void*, TF_OpKernelContext* context) {
  Run run(context);
  const Tensor image = run.Input(0, "the image", {-1, -1, 3});
  const Tensor wanted = run.Input(1, "the size", {2});
  const Tensor flip = run.Input(2, "flip", {});
  if (!run.ok()) return;
  const Size size{Data<int32_t>(wanted)[0], Data<int32_t>(wanted)[1]};
  if (!IsReasonable(size)) return run.Fail("the size to resize to is negative or too large");
  const Tensor result = run.Allocate(TF_UINT8, {size.height, size.width, 3});
  if (!run.ok()) return;
  const char* error = Resize(Data<uint8_t>(image), ImageSize(image), *Data<bool>(flip), size,
                             Data<uint8_t>(result));
  if (error) run.Fail(error);
}

// ---- ConvoyCropWindow -----------------------------------------------------------------------

void ComputeCropWindow(void*, TF_OpKernelContext* context) {
  Run run(context);
  const Tensor shape = run.Input(0, "the shape", {2});
  const Tensor areas = run.Input(1, "areas", {-1});
  if (!run.ok()) return;
  const int64_t attempts = TF_Dim(areas.get(), 0);
  const Tensor stretch = run.Input(2, "stretch", {2, attempts});
  const Tensor places = run.Input(3, "places", {2, attempts});
  const Tensor limits = run.Input(4, "limits", {2});
  if (attempts > 1000) run.Fail("more than 1000 attempts at a crop");
  if (!run.ok()) return;
  const Tensor result = run.Allocate(TF_INT32, {4});
  if (!run.ok()) return;
  const Size size{Data<int32_t>(shape)[0], Data<int32_t>(shape)[1]};
  const CropDraws draws{static_cast<int>(attempts), Data<float>(areas), Data<float>(stretch),
                        Data<float>(places), Data<float>(limits)};
  Window window;
  const char* error = CropWindow(size, draws, &window);
  if (error) return run.Fail(error);
  int32_t* numbers = Data<int32_t>(result);
  numbers[0] = window.y, numbers[1] = window.x;
  numbers[2] = window.height, numbers[3] = window.width;
}

// ---- registration ---------------------------------------------------------------------------

void SameShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  const Shape shape(TF_NewShapeHandle());
  TF_ShapeInferenceContextGetInput(context, 0, shape.get(), status);
  if (TF_GetCode(status) != TF_OK) return;
  TF_ShapeInferenceContextSetOutput(context, 0, shape.get(), status);
}

void UnknownShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

struct Definition {
  const char* name;
  std::vector<const char*> inputs;
  const char* output;
  const char* attribute;
  void (*shape)(TF_ShapeInferenceContext*, TF_Status*);
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};

void Register(const Definition& op) {
  const Status status(TF_NewStatus());
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(op.name);
  for (const char* input : op.inputs) TF_OpDefinitionBuilderAddInput(definition, input);
  TF_OpDefinitionBuilderAddOutput(definition, op.output);
  if (op.attribute) TF_OpDefinitionBuilderAddAttr(definition, op.attribute);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, op.shape);
  TF_RegisterOpDefinition(definition, status.get());
  TF_KernelBuilder* kernel =
      TF_NewKernelBuilder(op.name, "CPU", op.create, op.compute, op.destroy);
  TF_RegisterKernelBuilder(op.name, kernel, status.get());
}

[[maybe_unused]] const bool kRegistered = [] {
  Register({"ConvoyAugment",
            {"image: uint8", "ops: int32", "arguments: double", "centres: float"},
            "result: uint8",
            "names: list(string)",
            SameShape,
            CreateAugment,
            ComputeAugment,
            DeleteAugment});
  Register({"ConvoyResize",
            {"image: uint8", "size: int32", "flip: bool"},
            "result: uint8",
            nullptr,
            UnknownShape,
            nullptr,
            ComputeResize,
            nullptr});
  Register({"ConvoyCropWindow",
            {"shape: int32", "areas: float", "stretch: float", "places: float", "limits: float"},
            "window: int32",
            nullptr,
            UnknownShape,
            nullptr,
            ComputeCropWindow,
            nullptr});
  return true;
}();

}  // namespace
}  // namespace convoy
