// Wraps TensorFlow's stable C interface for operations, for this project's native folders.
//
// For any shapes and numbers, an operation returns a result or InvalidArgument.

#ifndef CONVOY_UTILS_NATIVE_OP_H_
#define CONVOY_UTILS_NATIVE_OP_H_

#include <tensorflow/c/kernels.h>
#include <tensorflow/c/ops.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace convoy {

struct Delete {
  void operator()(TF_Status* status) const { TF_DeleteStatus(status); }
  void operator()(TF_Tensor* tensor) const { TF_DeleteTensor(tensor); }
  void operator()(TF_ShapeHandle* shape) const { TF_DeleteShapeHandle(shape); }
};
using Status = std::unique_ptr<TF_Status, Delete>;
using Tensor = std::unique_ptr<TF_Tensor, Delete>;
using Shape = std::unique_ptr<TF_ShapeHandle, Delete>;

template <typename T>
T* Data(const Tensor& tensor) {
  return static_cast<T*>(TF_TensorData(tensor.get()));
}

inline int64_t Side(const Tensor& tensor, int axis) { return TF_Dim(tensor.get(), axis); }

// One run of a kernel: its inputs, its outputs, and the first error.
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

  int inputs() const { return TF_NumInputs(context_); }

  // Returns input number `index`, whose dimensions must be `shape`; -1 means any.
  Tensor Input(int index, const char* name, const std::vector<int64_t>& shape) {
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

  // Returns an output in the inputs' shape. It reuses the buffer of the first of `inputs` (numbers
  // `first`, `first` + 1, …) that nobody else needs, or otherwise allocates a new one. TensorFlow
  // does not pass on a buffer that is held twice, so this releases all inputs and reads them again;
  // a null input is the one whose buffer the output took over.
  Tensor TakeOver(std::vector<Tensor>& inputs, int index = 0, int first = 0) {
    if (!ok()) return nullptr;
    std::vector<int64_t> shape(TF_NumDims(inputs[0].get()));
    for (size_t i = 0; i < shape.size(); ++i) shape[i] = Side(inputs[0], static_cast<int>(i));
    std::vector<int> numbers(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      numbers[i] = first + static_cast<int>(i);
      inputs[i].reset();
    }
    int taken = -1;
    Tensor output(TF_ForwardInputOrAllocateOutput(
        context_, numbers.data(), static_cast<int>(numbers.size()), index, shape.data(),
        static_cast<int>(shape.size()), &taken, status_.get()));
    for (int i : numbers) {
      if (i != taken) inputs[i - first] = Input(i, "an input", shape);
    }
    return output;
  }

  Tensor Allocate(int index, TF_DataType type, const std::vector<int64_t>& shape) {
    size_t bytes = TF_DataTypeSize(type);
    for (int64_t side : shape) bytes *= side;
    return Tensor(TF_AllocateOutput(context_, index, type, shape.data(),
                                    static_cast<int>(shape.size()), bytes, status_.get()));
  }

 private:
  TF_OpKernelContext* const context_;
  const Status status_;
};

using ShapeFunction = void (*)(TF_ShapeInferenceContext*, TF_Status*);

inline void UnknownShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

struct Definition {
  const char* name;
  std::vector<const char*> inputs, outputs, attributes;
  ShapeFunction shape;
};

inline void Define(const Definition& op) {
  const Status status(TF_NewStatus());
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(op.name);
  for (const char* input : op.inputs) TF_OpDefinitionBuilderAddInput(definition, input);
  for (const char* output : op.outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
  for (const char* attribute : op.attributes) {
    TF_OpDefinitionBuilderAddAttr(definition, attribute);
  }
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, op.shape);
  TF_RegisterOpDefinition(definition, status.get());
}

// The functions of a CPU kernel. `create` and `destroy` may be null; `type` is that of the
// attribute T, if the operation has one.
struct Kernel {
  void* (*create)(TF_OpKernelConstruction*) = nullptr;
  void (*compute)(void*, TF_OpKernelContext*) = nullptr;
  void (*destroy)(void*) = nullptr;
};

inline void Implement(const char* name, const Kernel& kernel, const TF_DataType* type = nullptr) {
  const Status status(TF_NewStatus());
  TF_KernelBuilder* builder =
      TF_NewKernelBuilder(name, "CPU", kernel.create, kernel.compute, kernel.destroy);
  if (type) TF_KernelBuilder_TypeConstraint(builder, "T", *type, status.get());
  TF_RegisterKernelBuilder(name, builder, status.get());
}

}  // namespace convoy

#endif  // CONVOY_UTILS_NATIVE_OP_H_
