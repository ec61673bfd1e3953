// Wraps the kernels as TensorFlow operations, through TensorFlow's stable C interface.
//
// All run on the CPU on one image each. For any shapes and numbers they return a result or
// InvalidArgument. dataloader/native/__init__.py loads them and says what they compute.

#include "utils/native/op.h"

#include <tensorflow/core/platform/ctstring.h>

#include <cstring>
#include <string_view>

#include "kernels.h"

namespace convoy {
namespace {

Size ImageSize(const Tensor& image) { return {TF_Dim(image.get(), 0), TF_Dim(image.get(), 1)}; }

// ---- ConvoyAugment --------------------------------------------------------------------------

// The operation for each number, from the attribute `names`.
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
  std::vector<Tensor> image;
  image.push_back(run.Input(0, "the image", {-1, -1, 3}));
  const Tensor result = run.TakeOver(image);
  if (!run.ok()) return;
  const uint8_t* pixels = Data<uint8_t>(image[0] ? image[0] : result);
  const char* error = Augment(pixels, ImageSize(result), steps.data(), steps.size(),
                              Data<uint8_t>(result));
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
  const Tensor result = run.Allocate(0, TF_UINT8, {size.height, size.width, 3});
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
  const Tensor result = run.Allocate(0, TF_INT32, {4});
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

// ---- ConvoyOrientation ----------------------------------------------------------------------

void ComputeOrientation(void*, TF_OpKernelContext* context) {
  Run run(context);
  const Tensor encoded = run.Input(0, "the image", {});
  if (!run.ok()) return;
  const Tensor result = run.Allocate(0, TF_INT32, {});
  if (!run.ok()) return;
  const TF_TString* text = Data<TF_TString>(encoded);
  *Data<int32_t>(result) = Orientation(
      reinterpret_cast<const uint8_t*>(TF_TString_GetDataPointer(text)), TF_TString_GetSize(text));
}

// ---- ConvoyUpright, ConvoyStoredWindow ------------------------------------------------------

// Returns input number `index`, or 1 if it is not an orientation.
int ReadOrientation(Run& run, int index) {
  const Tensor number = run.Input(index, "the orientation", {});
  if (!run.ok()) return 1;
  const int32_t value = *Data<int32_t>(number);
  return value >= 1 && value <= 8 ? value : 1;
}

void ComputeUpright(void*, TF_OpKernelContext* context) {
  Run run(context);
  const int orientation = ReadOrientation(run, 1);
  std::vector<Tensor> image;
  image.push_back(run.Input(0, "the image", {-1, -1, 3}));
  if (!run.ok()) return;
  const Size size = ImageSize(image[0]);
  if (orientation == 1) {
    const Tensor result = run.TakeOver(image);
    if (run.ok() && image[0]) {
      std::memcpy(Data<uint8_t>(result), Data<uint8_t>(image[0]), 3 * size.height * size.width);
    }
    return;
  }
  const bool swaps = SwapsSides(orientation);
  const Tensor result = run.Allocate(0, TF_UINT8, {swaps ? size.width : size.height,
                                                   swaps ? size.height : size.width, 3});
  if (!run.ok()) return;
  Upright(Data<uint8_t>(image[0]), size, orientation, Data<uint8_t>(result));
}

void ComputeStoredWindow(void*, TF_OpKernelContext* context) {
  Run run(context);
  const Tensor window = run.Input(0, "the window", {4});
  const Tensor shape = run.Input(1, "the shape", {2});
  const int orientation = ReadOrientation(run, 2);
  if (!run.ok()) return;
  const Tensor result = run.Allocate(0, TF_INT32, {4});
  if (!run.ok()) return;
  const int32_t* part = Data<int32_t>(window);
  const Window found = StoredWindow({part[0], part[1], part[2], part[3]},
                                    {Data<int32_t>(shape)[0], Data<int32_t>(shape)[1]},
                                    orientation);
  int32_t* numbers = Data<int32_t>(result);
  numbers[0] = found.y, numbers[1] = found.x;
  numbers[2] = found.height, numbers[3] = found.width;
}

// ---- registration ---------------------------------------------------------------------------

void SameShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  const Shape shape(TF_NewShapeHandle());
  TF_ShapeInferenceContextGetInput(context, 0, shape.get(), status);
  if (TF_GetCode(status) != TF_OK) return;
  TF_ShapeInferenceContextSetOutput(context, 0, shape.get(), status);
}

[[maybe_unused]] const bool kRegistered = [] {
  Define({"ConvoyAugment",
          {"image: uint8", "ops: int32", "arguments: double", "centres: float"},
          {"result: uint8"},
          {"names: list(string)"},
          SameShape});
  Implement("ConvoyAugment", {CreateAugment, ComputeAugment, DeleteAugment});
  Define({"ConvoyResize",
          {"image: uint8", "size: int32", "flip: bool"},
          {"result: uint8"},
          {},
          UnknownShape});
  Implement("ConvoyResize", {nullptr, ComputeResize, nullptr});
  Define({"ConvoyCropWindow",
          {"shape: int32", "areas: float", "stretch: float", "places: float", "limits: float"},
          {"window: int32"},
          {},
          UnknownShape});
  Implement("ConvoyCropWindow", {nullptr, ComputeCropWindow, nullptr});
  Define({"ConvoyOrientation", {"encoded: string"}, {"orientation: int32"}, {}, UnknownShape});
  Implement("ConvoyOrientation", {nullptr, ComputeOrientation, nullptr});
  Define({"ConvoyUpright",
          {"image: uint8", "orientation: int32"},
          {"result: uint8"},
          {},
          UnknownShape});
  Implement("ConvoyUpright", {nullptr, ComputeUpright, nullptr});
  Define({"ConvoyStoredWindow",
          {"window: int32", "shape: int32", "orientation: int32"},
          {"stored: int32"},
          {},
          UnknownShape});
  Implement("ConvoyStoredWindow", {nullptr, ComputeStoredWindow, nullptr});
  return true;
}();

}  // namespace
}  // namespace convoy
