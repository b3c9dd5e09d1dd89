// Compositing on the GPU: a warp per ray, a lane per sample, so that reads are coalesced. The order
// of the sums is fixed.
#include "march.h"

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARPS = 4;  // per block

template <class T>
__device__ __forceinline__ T sum_over_lanes(T value) {
  for (int offset = 16; offset; offset >>= 1) value += __shfl_xor_sync(ALL_LANES, value, offset);
  return value;
}

// The sum over this lane and those below it.
template <class T>
__device__ __forceinline__ T inclusive_prefix_sum(T value) {
  int lane = threadIdx.x & 31;
  for (int offset = 1; offset < 32; offset <<= 1) {
    T below = __shfl_up_sync(ALL_LANES, value, offset);
    if (lane >= offset) value += below;
  }
  return value;
}

// The sum over this lane and those above it.
template <class T>
__device__ __forceinline__ T inclusive_suffix_sum(T value) {
  int lane = threadIdx.x & 31;
  for (int offset = 1; offset < 32; offset <<= 1) {
    T above = __shfl_down_sync(ALL_LANES, value, offset);
    if (lane + offset < 32) value += above;
  }
  return value;
}

template <class T>
__global__ void __launch_bounds__(32 * WARPS) composite_kernel(Composite<T> work, int64_t rays) {
  int64_t ray = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
  if (ray >= rays) return;  // the whole warp
  int lane = threadIdx.x & 31;
  int64_t first = work.packed_info[2 * ray], last = first + work.packed_info[2 * ray + 1];
  T before = 0, depth = 0, opacity = 0;
  for (int64_t j = first + lane; j - lane < last; j += 32) {
    T s = j < last ? work.sigmas[j] * work.deltas[j] : T(0);
    T inclusive = inclusive_prefix_sum(s), below = __shfl_up_sync(ALL_LANES, inclusive, 1);
    T tau = before + (lane ? below : T(0));
    T w = j < last && tau <= work.max_optical_depth ? exp(-tau) * -expm1(-s) : T(0);
    if (j < last) {
      depth += w * work.ts[j];
      opacity += w;
      work.weights[j] = w;
    }
    before += __shfl_sync(ALL_LANES, inclusive, 31);
  }
  depth = sum_over_lanes(depth);
  opacity = sum_over_lanes(opacity);
  if (lane == 0) {
    work.depths[ray] = depth;
    work.opacities[ray] = opacity;
  }
  for (int64_t c = 0; c < work.channels; c++) {
    T color = 0;
    for (int64_t j = first + lane; j < last; j += 32)
      color += work.weights[j] * work.features[j * work.channels + c];
    color = sum_over_lanes(color);
    if (lane == 0) work.image[ray * work.channels + c] = color;
  }
}

template <class T>
__global__ void __launch_bounds__(32 * WARPS)
    composite_grad_kernel(CompositeGrad<T> work, int64_t rays) {
  const auto &in = work.in;
  int64_t ray = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
  if (ray >= rays) return;
  int lane = threadIdx.x & 31;
  int64_t first = in.packed_info[2 * ray], last = first + in.packed_info[2 * ray + 1];
  T before = 0, suffix = 0;
  for (int64_t j = first + lane; j - lane < last; j += 32) {  // transmittance behind each sample
    T s = j < last ? in.sigmas[j] * in.deltas[j] : T(0);
    T inclusive = inclusive_prefix_sum(s), below = __shfl_up_sync(ALL_LANES, inclusive, 1);
    T tau = before + (lane ? below : T(0));
    if (j < last)
      work.d_sigmas[j] = tau <= in.max_optical_depth ? exp(-(before + inclusive)) : T(STOPPED);
    before += __shfl_sync(ALL_LANES, inclusive, 31);
  }
  int64_t rounds = (last - first + 31) / 32;
  for (int64_t j = first + 32 * (rounds - 1) + lane; j - lane >= first; j -= 32) {  // from the back
    bool valid = j < last;
    T g = valid ? work.d_weight(ray, j) : T(0), w = valid ? in.weights[j] : T(0);
    T from = inclusive_suffix_sum(w * g), above = __shfl_down_sync(ALL_LANES, from, 1);
    T behind = suffix + (lane < 31 ? above : T(0));
    if (valid) {
      T transmittance = work.d_sigmas[j];
      work.d_sigmas[j] =
          transmittance == T(STOPPED) ? T(0) : in.deltas[j] * (transmittance * g - behind);
      for (int64_t c = 0; c < in.channels; c++)
        work.d_features[j * in.channels + c] = w * work.d_image[ray * in.channels + c];
    }
    suffix += __shfl_sync(ALL_LANES, from, 0);
  }
}

template <class T>
int composite(const Composite<T> &work, int64_t rays, intptr_t threads_or_stream) {
  if (rays == 0) return 0;
  composite_kernel<<<(unsigned)((rays + WARPS - 1) / WARPS), 32 * WARPS, 0,
                     (cudaStream_t)threads_or_stream>>>(work, rays);
  return (int)cudaGetLastError();
}

template <class T>
int composite_grad(const CompositeGrad<T> &work, int64_t rays, intptr_t threads_or_stream) {
  if (rays == 0) return 0;
  composite_grad_kernel<<<(unsigned)((rays + WARPS - 1) / WARPS), 32 * WARPS, 0,
                          (cudaStream_t)threads_or_stream>>>(work, rays);
  return (int)cudaGetLastError();
}
