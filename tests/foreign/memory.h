// The memory of the foreign device, which is the host's: tensors of one on the memory of the other; its generators.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ops/_efficientzerotensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <mutex>
#include <unordered_set>

#include "device.h"

namespace foreign {

const c10::Device HERE(c10::kCUDA, 0), HOST(c10::kCPU);
Memory memory;

std::mutex pinned_mutex;
std::unordered_set<const void*> pinned;

void give_back(void* context) {  // what the device keeps of the host's memory
  auto* storage = static_cast<c10::StorageImpl*>(context);
  memory.now -= static_cast<int64_t>(storage->nbytes());
  c10::raw::intrusive_ptr::decref(storage);
}

void let_go(void* context) {  // what an alias on the host keeps of the device's memory
  c10::raw::intrusive_ptr::decref(static_cast<c10::StorageImpl*>(context));
}

void unpin(void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  pinned.erase(data);
  c10::free_cpu(data);
}

struct Pinned final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = c10::alloc_cpu(std::max<size_t>(n, 1));
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.insert(data);
    return {data, data, &unpin, HOST};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
} pinned_allocator;

c10::DataPtr taken(const c10::Storage& host) {  // the host's memory as the device's
  auto* impl = host.unsafeGetStorageImpl();
  const auto size = static_cast<int64_t>(impl->nbytes());
  TORCH_CHECK_WITH(OutOfMemoryError, memory.now + size <= memory.limit, "CUDA out of memory. Tried to allocate ", size,
                   " bytes beside ", memory.now, " of ", memory.limit, ".");
  memory.now += size;
  memory.peak = std::max(memory.peak, memory.now);
  c10::raw::intrusive_ptr::incref(impl);
  return {impl->mutable_data(), impl, &give_back, HERE};
}

struct Device final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    return taken(c10::Storage(c10::Storage::use_byte_size_t(), n, c10::GetCPUAllocator(), false));
  }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
} device_allocator;

at::Tensor shaped(const at::Tensor& as, c10::Storage storage, c10::DispatchKeySet keys) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, as.dtype());
  auto* impl = made.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(as.sizes(), as.strides(), as.storage_offset());
  if (as.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  if (as.is_conj()) impl->_set_conj(true);
  if (as.is_neg()) impl->_set_neg(true);
  return made;
}

at::Tensor host(const at::Tensor& x) {
  if (!x.defined() || !x.is_cuda()) return x;
  if (x._is_zerotensor()) return at::_efficientzerotensor(x.sizes(), x.options().device(HOST));
  auto* impl = x.storage().unsafeGetStorageImpl();
  c10::raw::intrusive_ptr::incref(impl);
  c10::DataPtr data(impl->mutable_data(), impl, &let_go, HOST);
  c10::Storage storage(c10::Storage::use_byte_size_t(), impl->nbytes(), std::move(data), c10::GetCPUAllocator(), true);
  return shaped(x, std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU));
}

c10::Storage here(const c10::Storage& storage) {
  if (storage.data_ptr().get_deleter() == &let_go) {  // a view: of the same storage
    auto* impl = static_cast<c10::StorageImpl*>(storage.data_ptr().get_context());
    c10::raw::intrusive_ptr::incref(impl);
    return c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim(impl));
  }
  return c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(), taken(storage), &device_allocator, true);
}

at::Tensor device(const at::Tensor& x) {
  if (!x.defined() || x.is_cuda()) return x;
  return shaped(x, here(x.storage()), c10::DispatchKeySet(c10::DispatchKey::CUDA));
}

void take_over(const at::Tensor& mine, const at::Tensor& changed) {  // the shape and memory that an operator gave its alias
  auto* impl = mine.unsafeGetTensorImpl();
  if (changed.storage().data() != mine.storage().data()) {
    auto* storage = mine.storage().unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(taken(changed.storage()));
    storage->set_nbytes(changed.storage().nbytes());
  }
  if (mine.sizes() != changed.sizes() || mine.strides() != changed.strides())
    impl->set_sizes_and_strides(changed.sizes(), changed.strides(), changed.storage_offset());
}

// ---- random numbers ----

struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(uint64_t seed) : at::CPUGeneratorImpl(seed) { device_ = HERE; }
  void move(c10::Device to) { device_ = to; }
  GeneratorImpl* copy() const {
    auto* made = new Generator(current_seed());
    made->set_state(*get_state());
    return made;
  }
};

at::Generator new_generator() { return at::Generator(c10::make_intrusive<Generator>(c10::default_rng_seed_val)); }

const at::Generator& default_generator() {
  static at::Generator generator = new_generator();
  return generator;
}

struct Borrowed {  // a generator of the device, as one of the host, for the time of a call
  std::vector<at::Generator> all;
  at::Generator take(const at::Generator& g) {
    if (g.defined() && g.device() == HERE) {
      static_cast<Generator*>(g.unsafeGetGeneratorImpl())->move(HOST);
      all.push_back(g);
    }
    return g;
  }
  ~Borrowed() {
    for (auto& g : all) static_cast<Generator*>(g.unsafeGetGeneratorImpl())->move(HERE);
  }
};

}  // namespace foreign
