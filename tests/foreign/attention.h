// CUDA's fused attention of the foreign device: which operator takes what, and their values, by a reference of products.
#pragma once
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/native/transformers/attention.h>
#include <torch/library.h>

#include "device.h"

namespace foreign {

enum Choice { MATH = 0, FLASH = 1, EFFICIENT = 2 };  // at::SDPBackend

inline bool is_half(const at::Tensor& x) { return x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16; }

// What both refuse: other shapes than (B, H, N, D), heads or batches that differ, nothing to attend to.
inline bool usable(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool grouped) {
  if (q.dim() != 4 || k.dim() != 4 || v.dim() != 4) return false;
  if (q.size(0) != k.size(0) || q.size(0) != v.size(0) || k.size(1) != v.size(1)) return false;
  if (q.size(1) != k.size(1) && !(grouped && q.size(1) % k.size(1) == 0)) return false;
  if (q.stride(-1) != 1 || k.stride(-1) != 1 || v.stride(-1) != 1) return false;
  return q.size(2) && k.size(2) && q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type();
}

inline bool flash_takes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool mask, bool causal, bool grouped) {
  return is_half(q) && !mask && usable(q, k, v, grouped) && q.size(-1) == v.size(-1) && q.size(-1) <= 256 &&
         !(causal && q.size(2) != k.size(2));
}

inline bool efficient_takes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t unit = is_half(q) ? 8 : 4;  // 16 bytes, from sm_80 on
  return (is_half(q) || q.scalar_type() == at::kFloat) && usable(q, k, v, false) && q.size(-1) % unit == 0 &&
         v.size(-1) % unit == 0;
}

inline int64_t choose(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::optional<at::Tensor>& mask,
                      double dropout, bool causal, std::optional<double>, bool grouped) {
  auto& context = at::globalContext();
  if (context.userEnabledFlashSDP() && flash_takes(q, k, v, mask.has_value(), causal, grouped)) return FLASH;
  if (context.userEnabledMemEfficientSDP() && efficient_takes(q, k, v)) return EFFICIENT;
  TORCH_CHECK(context.userEnabledMathSDP(), "No available kernel. Aborting execution.");
  return MATH;
}

struct Scores {  // of one attention on the host, in float32: P (B, H, N, M), and the logsumexp (B, H, N) of the scores
  at::Tensor q, k, v, P, logsumexp;
  double scale;
  int64_t groups;
};

inline Scores scores(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const std::optional<at::Tensor>& bias, bool causal, std::optional<double> scale) {
  Scores s;
  s.groups = query.size(1) / key.size(1);
  s.scale = scale.value_or(1 / std::sqrt(static_cast<double>(query.size(-1))));
  s.q = host(query).to(at::kFloat);
  s.k = host(key).to(at::kFloat).repeat_interleave(s.groups, 1);
  s.v = host(value).to(at::kFloat).repeat_interleave(s.groups, 1);
  at::Tensor S = s.scale * s.q.matmul(s.k.transpose(-2, -1));
  if (bias && bias->defined()) S = S + host(*bias).to(at::kFloat);
  if (causal) S = S.masked_fill(at::ones({S.size(-2), S.size(-1)}, at::kBool).tril().logical_not(), -INFINITY);
  s.logsumexp = S.logsumexp(-1);
  s.P = (S - s.logsumexp.unsqueeze(-1)).exp().nan_to_num(0.0);
  return s;
}

inline at::Tensor like_query(const at::Tensor& O, const at::Tensor& query) {  // (B, H, N, E), as CUDA: laid out as (B, N, H, E)
  return device(O.to(query.scalar_type()).transpose(1, 2).contiguous()).transpose(1, 2);
}

inline at::Tensor seed() { return device(at::zeros({2}, at::kLong)); }

using Flash = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor, at::Tensor, at::Tensor>;

inline Flash flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double dropout, bool causal, bool,
                   std::optional<double> scale) {
  TORCH_CHECK(is_half(q), "FlashAttention only support fp16 and bf16 data type");
  TORCH_CHECK(flash_takes(q, k, v, false, causal, true), "FlashAttention does not take these shapes");
  TORCH_CHECK(q.size(-1) % 8 == 0, "FlashAttention: the head dimension must be a multiple of 8");
  TORCH_CHECK(dropout == 0, "The foreign device has no dropout in attention");
  say("aten::_scaled_dot_product_flash_attention", WRITES);
  at::AutoDispatchBelowADInplaceOrView below;
  const Scores s = scores(q, k, v, std::nullopt, causal, scale);
  return {like_query(s.P.matmul(s.v), q), device(s.logsumexp.contiguous()), at::Tensor(), at::Tensor(), q.size(2), k.size(2),
          seed(), device(at::zeros({}, at::kLong)), device(at::zeros({0}, q.options().device(at::kCPU)))};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gradients(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
    const std::optional<at::Tensor>& bias, bool causal, std::optional<double> scale) {
  const Scores s = scores(q, k, v, bias, causal, scale);
  const at::Tensor g = host(grad).to(at::kFloat);
  const at::Tensor D = (g * host(out).to(at::kFloat)).sum(-1, true);
  const at::Tensor dS = s.P * (g.matmul(s.v.transpose(-2, -1)) - D);
  const auto summed = [&](const at::Tensor& x, const at::Tensor& like) {
    return device(x.reshape({x.size(0), like.size(1), s.groups, x.size(2), x.size(3)}).sum(2).to(like.scalar_type()));
  };
  return {device((s.scale * dS.matmul(s.k)).to(q.scalar_type())), summed(s.scale * dS.transpose(-2, -1).matmul(s.q), k),
          summed(s.P.transpose(-2, -1).matmul(g), v), dS};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor> flash_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
    const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt, double, bool causal,
    const at::Tensor&, const at::Tensor&, std::optional<double> scale) {
  say("aten::_scaled_dot_product_flash_attention_backward", WRITES);
  at::AutoDispatchBelowADInplaceOrView below;
  auto [dq, dk, dv, dS] = gradients(grad, q, k, v, out, std::nullopt, causal, scale);
  return {dq, dk, dv};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> efficient(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::optional<at::Tensor>& bias, bool wanted,
    double dropout, bool causal, std::optional<double> scale) {
  TORCH_CHECK(efficient_takes(q, k, v), "Efficient attention does not take these shapes or this dtype");
  TORCH_CHECK(dropout == 0, "The foreign device has no dropout in attention");
  if (bias && bias->defined()) {
    TORCH_CHECK(bias->is_cuda() && bias->scalar_type() == q.scalar_type(), "invalid dtype or device of the bias");
    TORCH_CHECK(bias->dim() == 4 && bias->size(0) == q.size(0) && bias->size(1) == q.size(1) &&
                    bias->size(2) == q.size(2) && bias->size(3) == k.size(2), "the bias must be of (B, H, N, M)");
    TORCH_CHECK(bias->stride(-1) == 1 && bias->stride(-2) % (is_half(q) ? 8 : 4) == 0, "attn_bias is not correctly aligned");
  }
  say("aten::_scaled_dot_product_efficient_attention", WRITES);
  at::AutoDispatchBelowADInplaceOrView below;
  const Scores s = scores(q, k, v, bias, causal, scale);
  const int64_t N = q.size(2), rows = wanted ? (N + 31) / 32 * 32 : 0;
  at::Tensor logsumexp = at::full({q.size(0), q.size(1), rows}, INFINITY);
  if (wanted) logsumexp.slice(2, 0, N).copy_(s.logsumexp);
  return {like_query(s.P.matmul(s.v), q), device(logsumexp), device(at::zeros({}, at::kLong)),
          device(at::zeros({}, at::kLong))};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> efficient_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias,
    const at::Tensor& out, const at::Tensor&, const at::Tensor&, const at::Tensor&, double, std::array<bool, 4> wanted,
    bool causal, std::optional<double> scale) {
  say("aten::_scaled_dot_product_efficient_attention_backward", WRITES);
  at::AutoDispatchBelowADInplaceOrView below;
  const auto given = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  auto [dq, dk, dv, dS] = gradients(grad, q, k, v, out, given, causal, scale);
  return {dq, dk, dv, given && wanted[3] ? device(dS.to(bias.scalar_type())) : at::Tensor()};
}

inline void register_attention(torch::Library& m) {
  m.impl("_fused_sdp_choice", &choose);
  m.impl("_scaled_dot_product_flash_attention", &flash);
  m.impl("_scaled_dot_product_flash_attention_backward", &flash_backward);
  m.impl("_scaled_dot_product_efficient_attention", &efficient);
  m.impl("_scaled_dot_product_efficient_attention_backward", &efficient_backward);
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&choose);
}

}  // namespace foreign
