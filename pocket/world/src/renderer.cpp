// The renderer on the CPU: rows of pictures, dealt out to threads.
#include "renderer.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

template <class Work>
static void parallel(int jobs, int threads, Work work) {
  std::atomic<int> next{0};
  auto run = [&] {
    for (int j; (j = next++) < jobs;) work(j);
  };
  std::vector<std::thread> pool;
  for (int i = 1; i < std::min(jobs, threads); i++) pool.emplace_back(run);
  run();
  for (auto &t : pool) t.join();
}

extern "C" int world_render(const float *scenes, int n, int height, int width, int samples, float *display,
                            float *depth, float *normal, uint8_t *mask, uint8_t *color, int threads) {
  auto frame = [&](int i) { return frame_of(i, height, width, samples, display, depth, normal, mask, color); };
  parallel(n * height, threads, [&](int job) {
    const float *s = scenes + (size_t)(job / height) * SCENE_FLOATS;
    Frame f = frame(job / height);
    for (int col = 0; col < width; col++)
      draw_pixel(f, s, s + PRIMS, s + MATERIALS, s[H_KIND] > 0.0f, job % height, col);
  });
  parallel(n * height, threads, [&](int job) {
    Frame f = frame(job / height);
    for (int col = 0; col < width; col++)
      style_pixel(f, scenes + (size_t)(job / height) * SCENE_FLOATS, job % height, col);
  });
  return 0;
}
