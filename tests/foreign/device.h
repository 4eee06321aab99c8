// What the parts of the foreign device share, and what it says of a call: see device.cpp.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

#include <limits>
#include <string>
#include <unordered_set>

namespace foreign {

enum Kind { WRITES = 0, WAITS = 1 };
using Recorder = void (*)(const char* what, int kind);
extern Recorder recorder;

struct Memory {
  int64_t now = 0, peak = 0, limit = std::numeric_limits<int64_t>::max();
};

at::Tensor host(const at::Tensor& x);    // a tensor of the CPU on the same memory
at::Tensor device(const at::Tensor& x);  // a tensor of the device on the same memory

inline const torch::jit::IValue* argument(const c10::FunctionSchema& schema, const torch::jit::Stack& given,
                                          const char* name) {
  for (size_t i = 0; i < given.size(); ++i)
    if (schema.arguments()[i].name() == name) return &given[i];
  return nullptr;
}

inline void say(const std::string& what, Kind kind) {
  if (recorder) recorder(what.c_str(), kind);
}

inline std::string full_name(const c10::FunctionSchema& schema) {
  return schema.overload_name().empty() ? schema.name() : schema.name() + "." + schema.overload_name();
}

inline bool is_index(const std::string& name) {
  static const std::unordered_set<std::string> names = {
      "aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_",
      "aten::_unsafe_index_put"};
  return names.count(name) > 0;
}

inline void refuse(const c10::FunctionSchema& schema) {
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (",
              full_name(schema), ")");
}

// A tensor of the CPU with dimensions beside one of the device: CUDA takes it as an index only, and waits for its copy.
inline void check_vectors(const c10::FunctionSchema& schema, const torch::jit::Stack& given) {
  if (!is_index(schema.name())) refuse(schema);
  for (size_t i = 0; i < given.size(); ++i)
    if (given[i].isTensor() && given[i].toTensor().is_cpu() && given[i].toTensor().dim() > 0) refuse(schema);
  say(full_name(schema) + " by indices of the CPU", WAITS);
}

// A CPU tensor without dimensions beside one of the device: CUDA reads it on the host, in these operators only.
inline void check_scalars(const c10::FunctionSchema& schema, const torch::jit::Stack& given) {
  static const std::unordered_set<std::string> allowed = {
      "add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "maximum", "minimum", "fmax", "fmin",
      "atan2", "hypot", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "bitwise_and",
      "bitwise_or", "bitwise_xor", "where", "fill", "masked_fill", "lerp", "addcmul", "clamp_min", "clamp_max", "xlogy",
      "copysign", "index_put", "_index_put_impl"};
  std::string name = schema.name().substr(6);
  const bool in_place = name.back() == '_';
  if (in_place) name.pop_back();
  if (!allowed.count(name) || (in_place && given[0].isTensor() && given[0].toTensor().is_cpu())) refuse(schema);
}

inline bool any_mask(const torch::jit::IValue* indices) {
  if (!indices || !indices->isOptionalTensorList()) return false;
  for (const auto& x : indices->toOptionalTensorVector())
    if (x && x->defined() && (x->scalar_type() == at::kBool || x->scalar_type() == at::kByte)) return true;
  return false;
}

// Tells the recorder of a call that writes a tensor, and of one that makes the host wait for the device.
inline void tell(const c10::FunctionSchema& schema, const torch::jit::Stack& given) {
  static const std::unordered_set<std::string> waits = {
      "aten::nonzero", "aten::masked_select", "aten::_local_scalar_dense", "aten::equal", "aten::_unique", "aten::_unique2",
      "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::linalg_eigh", "aten::_linalg_eigh",
      "aten::_linalg_svd", "aten::linalg_lstsq", "aten::_ctc_loss"};
  const std::string& name = schema.name();
  bool wait = waits.count(name) > 0 || (is_index(name) && any_mask(argument(schema, given, "indices")));
  if (name == "aten::repeat_interleave") {
    const auto* size = argument(schema, given, "output_size");
    wait = !size || size->isNone();
  }
  if (wait) say(full_name(schema), WAITS);
  if (name.rfind("aten::empty", 0) == 0 || name.rfind("aten::resize", 0) == 0 || name.rfind("aten::new_empty", 0) == 0)
    return;
  bool writes = false;
  for (const auto& x : schema.arguments()) writes |= x.alias_info() && x.alias_info()->isWrite();
  for (const auto& x : schema.returns()) {
    const bool tensors = x.type()->isSubtypeOf(*c10::TensorType::get()) ||
                         x.type()->isSubtypeOf(*c10::ListType::ofTensors());
    writes |= tensors && (!x.alias_info() || x.alias_info()->isWrite());
  }
  if (writes) say(full_name(schema), WRITES);
}

// A copy: CUDA waits unless it may go on, and memory of the host must be pinned for that.
inline void tell_copy(const at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  const bool up = to.is_cuda() && from.is_cpu(), down = to.is_cpu() && from.is_cuda();
  const bool value = up && from.dim() == 0 && from.unsafeGetTensorImpl()->is_wrapped_number();
  if (!value && to.numel() && (up || down)) {
    const at::Tensor& on_host = up ? from : to;
    if (!non_blocking)
      say(up ? "copy to the device" : "copy to the host", WAITS);
    else if (!on_host.is_pinned())
      say(up ? "copy to the device from pageable memory" : "copy to the host into pageable memory", WAITS);
  }
  say("aten::copy_", WRITES);
}

}  // namespace foreign
