// The renderer on the GPU: a block draws a tile of 16x16 pixels, a warp 8x4 of them.
#include "renderer.h"

#include <cuda_runtime.h>

struct Target {
  int height, width, samples;
  float *display, *depth, *normal;
  uint8_t *mask, *color;
};

__device__ void tile_pixel(int *row, int *col) {
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  *row = blockIdx.y * 16 + (warp >> 1) * 4 + (lane >> 3);
  *col = blockIdx.x * 16 + (warp & 1) * 8 + (lane & 7);
}

template <bool LANDSCAPE>
__global__ void __launch_bounds__(256) draw(const float *scenes, Target t) {
  const float *s = scenes + (size_t)blockIdx.z * SCENE_FLOATS;
  if ((s[H_KIND] > 0.0f) != LANDSCAPE) return;
  __shared__ __align__(16) float block[LANDSCAPE ? HEAD : SCENE_FLOATS];
  int floats = LANDSCAPE ? HEAD : PRIMS + PRIM * (int)s[H_PRIMS];
  for (int i = threadIdx.x; i < floats; i += blockDim.x) block[i] = s[i];
  __syncthreads();
  int row, col;
  tile_pixel(&row, &col);
  if (row >= t.height || col >= t.width) return;
  Frame f = frame_of(blockIdx.z, t.height, t.width, t.samples, t.display, t.depth, t.normal, t.mask, t.color);
  draw_pixel(f, block, block + PRIMS, block + MATERIALS, LANDSCAPE, row, col);
}

__global__ void __launch_bounds__(256) style(const float *scenes, Target t) {
  int row, col;
  tile_pixel(&row, &col);
  if (row >= t.height || col >= t.width) return;
  Frame f = frame_of(blockIdx.z, t.height, t.width, t.samples, t.display, t.depth, t.normal, t.mask, t.color);
  style_pixel(f, scenes + (size_t)blockIdx.z * SCENE_FLOATS, row, col);
}

// Returns a cudaError_t. Runs on the given stream of the current device.
extern "C" int world_render_cuda(const float *scenes, int n, int height, int width, int samples, float *display,
                                 float *depth, float *normal, uint8_t *mask, uint8_t *color, void *stream) {
  Target t = {height, width, samples, display, depth, normal, mask, color};
  dim3 grid((width + 15) / 16, (height + 15) / 16, n);
  auto on = (cudaStream_t)stream;
  draw<false><<<grid, 256, 0, on>>>(scenes, t);
  draw<true><<<grid, 256, 0, on>>>(scenes, t);
  style<<<grid, 256, 0, on>>>(scenes, t);
  return (int)cudaGetLastError();
}

extern "C" const char *world_error(int code) { return cudaGetErrorString((cudaError_t)code); }
