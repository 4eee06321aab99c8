// A CUDA device whose memory is the host's, for a PyTorch without CUDA.
//
// A tensor of it is an ordinary tensor with the dispatch key CUDA, whose storage is the host's memory under another device.
// `on_host` serves every operator: it refuses tensors of two devices as CUDA does, runs the operator on the same memory
// as tensors of the CPU, and hands the results back as tensors of the device. What is written and what would make the host
// wait is told to `recorder`. Needs nothing of CUDA; device.py builds and loads it before torch is imported.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <unordered_set>

#include "attention.h"
#include "hooks.h"
#include "memory.h"

namespace foreign {

Recorder recorder = nullptr;

struct Call {  // the tensors of one call: those of the device, and their aliases
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  bool vectors_of_host = false, scalars_of_host = false, on_device = false;

  at::Tensor take(const at::Tensor& x) {
    if (!x.defined()) return x;
    if (!x.is_cuda()) {
      if (x.is_cpu()) (x.dim() ? vectors_of_host : scalars_of_host) |= !x.unsafeGetTensorImpl()->is_wrapped_number();
      return x;
    }
    on_device = true;
    for (auto& pair : pairs)
      if (pair.first.is_same(x)) return pair.second;
    pairs.emplace_back(x, host(x));
    return pairs.back().second;
  }

  at::Tensor give(const at::Tensor& x) const {
    if (x.defined())
      for (auto& pair : pairs)
        if (pair.second.is_same(x)) return pair.first;
    return device(x);
  }
};

void arguments_to_host(const c10::FunctionSchema& schema, torch::jit::Stack& stack, Call& call, Borrowed& borrowed) {
  const size_t n = schema.arguments().size();
  for (size_t i = 0; i < n; ++i) {
    c10::IValue& value = stack[stack.size() - n + i];
    if (value.isTensor()) {
      value = call.take(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& x : value.toTensorVector()) list.push_back(call.take(x));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& x : value.toOptionalTensorVector())
        list.push_back(x ? std::optional<at::Tensor>(call.take(*x)) : std::nullopt);
      value = list;
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      value = HOST;
    } else if (value.isGenerator()) {
      value = borrowed.take(value.toGenerator());
    } else if (value.isNone() && schema.arguments()[i].name() == "generator") {
      value = borrowed.take(default_generator());
    }
  }
}

void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  const size_t n = schema.arguments().size(), r = schema.returns().size();
  const torch::jit::Stack given(stack->end() - n, stack->end());
  Call call;
  Borrowed borrowed;
  arguments_to_host(schema, *stack, call, borrowed);
  if (call.on_device && call.vectors_of_host) check_vectors(schema, given);
  if (call.on_device && call.scalars_of_host) check_scalars(schema, given);
  if (recorder) tell(schema, given);
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(stack);
  }
  for (size_t i = 0; i < n; ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (!alias || !alias->isWrite()) continue;
    if (given[i].isTensor() && given[i].toTensor().is_cuda())
      take_over(given[i].toTensor(), call.take(given[i].toTensor()));
  }
  for (size_t i = stack->size() - r; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = call.give(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& x : value.toTensorVector()) list.push_back(call.give(x));
      value = list;
    }
  }
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  tell_copy(self, source, non_blocking);
  at::AutoDispatchBelowADInplaceOrView below;
  host(self).copy_(host(source));
  return self;
}

at::Tensor& set_storage_(at::Tensor& self, c10::Storage source, int64_t offset, at::IntArrayRef size,
                         at::IntArrayRef stride) {
  std::vector<int64_t> dense(size.size(), 1);
  for (size_t i = dense.size(); i-- > 1;) dense[i - 1] = dense[i] * std::max<int64_t>(size[i], 1);
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_sizes_and_strides(size, stride.size() == size.size() ? stride : at::IntArrayRef(dense), offset);
  return self;
}

at::Tensor& set_(at::Tensor& self, c10::Storage source) {
  const int64_t n = static_cast<int64_t>(source.nbytes() / self.element_size());
  return set_storage_(self, std::move(source), 0, {n}, {});
}

at::Tensor zero_tensor(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                       std::optional<at::Device>, std::optional<bool>) {
  static struct final : c10::Allocator {
    c10::DataPtr allocate(size_t) override { return {nullptr, nullptr, [](void*) {}, HERE}; }
    void copy_data(void*, const void*, size_t) const override {}
  } allocator;
  const c10::DispatchKeySet keys = c10::DispatchKeySet(c10::DispatchKey::CUDA) | c10::DispatchKeySet(c10::DispatchKey::ZeroTensor);
  return at::detail::empty_generic(size, &allocator, keys, dtype.value_or(at::kFloat), std::nullopt);
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& input, at::IntArrayRef shape,
                                                     const at::Tensor& rstd, const std::optional<at::Tensor>& weight,
                                                     std::array<bool, 2> wanted) {
  say("aten::_fused_rms_norm_backward", WRITES);
  at::AutoDispatchBelowADInplaceOrView below;
  const bool weighted = weight && weight->defined();
  const at::Tensor g = host(grad).to(at::kFloat), scale = host(rstd).to(at::kFloat);
  const at::Tensor normed = host(input).to(at::kFloat) * scale;
  const at::Tensor moved = weighted ? g * host(*weight).to(at::kFloat) : g;
  std::vector<int64_t> last, first;
  for (int64_t d = 0; d < input.dim(); ++d)
    (d < input.dim() - static_cast<int64_t>(shape.size()) ? first : last).push_back(d);
  const at::Tensor of_input = scale * (moved - normed * (moved * normed).mean(last, true));
  const at::Tensor of_weight = first.empty() ? g * normed : (g * normed).sum(first);
  return {wanted[0] ? device(of_input.to(input.scalar_type())) : at::Tensor(),
          wanted[1] && weighted ? device(of_weight.to(weight->scalar_type())) : at::Tensor()};
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  static const std::unordered_set<std::string> own = {"set_", "_efficientzerotensor", "copy_", "_fused_sdp_choice"};
  static const std::unordered_set<std::string> whole = {  // one kernel of CUDA's, several operators elsewhere
      "convolution", "convolution_backward", "_fused_rms_norm"};
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& full : dispatcher.getAllOpNames()) {
    if (full.name.rfind("aten::", 0) != 0) continue;
    const std::string name = full.name.substr(6);
    const auto op = dispatcher.findOp(full);
    if (!op || !op->hasSchema() || own.count(name) || name.find("_for_cpu") != std::string::npos) continue;
    if (op->hasKernelForDispatchKey(c10::DispatchKey::CPU) || name.rfind("_foreach_", 0) == 0 || whole.count(name)) {
      const std::string overload = full.overload_name.empty() ? name : name + "." + full.overload_name;
      m.impl(overload.c_str(), torch::CppFunction::makeFromBoxedFunction<&on_host>());
    }
  }
  m.impl("copy_", &copy_);
  m.impl("set_.source_Storage", &set_);
  m.impl("set_.source_Storage_storage_offset", &set_storage_);
  m.impl("_efficientzerotensor", &zero_tensor);
  m.impl("record_stream", [](at::Tensor&, c10::Stream) {});
  m.impl("_fused_rms_norm_backward", &rms_norm_backward);  // which the CPU has not
  register_attention(m);
}

}  // namespace foreign

extern "C" {
void foreign_record(foreign::Recorder recorder) { foreign::recorder = recorder; }
void foreign_limit(int64_t bytes) { foreign::memory.limit = bytes; }
void foreign_reset_peak() { foreign::memory.peak = foreign::memory.now; }
int64_t foreign_now() { return foreign::memory.now; }
int64_t foreign_peak() { return foreign::memory.peak; }
}
