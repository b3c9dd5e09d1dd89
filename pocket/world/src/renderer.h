// From samples to images: averaging, tone curve and the styles, per pixel. renderer.cpp and renderer.cu
// only loop over these functions.
#pragma once
#include "landscape.h"
#include "layout.h"
#include "math.h"
#include "objects.h"


struct Frame {
  int height, width, samples;
  float *display;  // (height, width, 3) after the tone curve, before the style
  float *depth;    // (height, width)
  float *normal;   // (height, width, 3)
  uint8_t *mask;   // (height, width)
  uint8_t *color;  // (height, width, 3)
};

HD float tone(float x) {  // straight, then a shoulder that approaches 1; gamma 2.2
  x = fmaxf(x, 0.0f);
  x = x < 0.7f ? x : 0.7f + 0.3f * (1.0f - expf(-(x - 0.7f) / 0.3f));
  return powf(x, 1.0f / 2.2f);
}

HD void draw_pixel(const Frame &f, const float *scene, const float *prims, const float *materials, bool landscape,
                   int row, int col) {
  vec3 sum = {0.0f, 0.0f, 0.0f}, normal = {0.0f, 0.0f, 0.0f};
  float nearest = 0.0f;
  int covered = 0;
  for (int k = 0; k < f.samples; k++) {
    // a rotated grid: distinct rows and columns for every sample
    float du = (k + 0.5f) / f.samples, dv = fract((k + 0.5f) * 0.618034f + 0.25f);
    if (f.samples == 1) du = dv = 0.5f;
    float x = (col + du - 0.5f * f.width) / f.height, y = (0.5f * f.height - row - dv) / f.height;
    Hit hit = landscape ? landscape_sample(scene, x, y) : object_sample(scene, prims, materials, x, y);
    sum = sum + v3(tone(hit.color.x), tone(hit.color.y), tone(hit.color.z));
    normal = normal + hit.normal;
    covered += hit.object;
    if (hit.depth > 0.0f && (nearest == 0.0f || hit.depth < nearest)) nearest = hit.depth;
  }
  int i = row * f.width + col;
  sum = sum / (float)f.samples;
  float size = length(normal);
  if (size > 0.0f) normal = normal / size;
  f.display[3 * i] = sum.x, f.display[3 * i + 1] = sum.y, f.display[3 * i + 2] = sum.z;
  f.normal[3 * i] = normal.x, f.normal[3 * i + 1] = normal.y, f.normal[3 * i + 2] = normal.z;
  f.depth[i] = nearest;
  f.mask[i] = 2 * covered >= f.samples;
}

HD float luminance(vec3 c) { return 0.299f * c.x + 0.587f * c.y + 0.114f * c.z; }

HD vec3 display_at(const Frame &f, int row, int col) {
  row = row < 0 ? 0 : row >= f.height ? f.height - 1 : row;
  col = col < 0 ? 0 : col >= f.width ? f.width - 1 : col;
  return v3(f.display + 3 * (row * f.width + col));
}

// Strength of the outline through a pixel, 0 to 1: steps in depth, creases, borders of the mask.
HD float outline(const Frame &f, bool landscape, int row, int col) {
  int r = f.height >= 192 ? 1 : 0;  // small images have thin lines
  int up = row - r < 0 ? 0 : row - r, left = col - r < 0 ? 0 : col - r;
  int down = row + 1 < f.height ? row + 1 : row, right = col + 1 < f.width ? col + 1 : col;
  float edge = 0.0f;
  int corner[2][2] = {{up * f.width + left, down * f.width + right}, {up * f.width + right, down * f.width + left}};
  for (int k = 0; k < 2; k++) {
    int a = corner[k][0], b = corner[k][1];
    float da = f.depth[a] > 0.0f ? f.depth[a] : 1e4f, db = f.depth[b] > 0.0f ? f.depth[b] : 1e4f;
    float crease = 1.0f - dot(v3(f.normal + 3 * a), v3(f.normal + 3 * b));
    bool object = f.mask[a] || f.mask[b];
    if (landscape) {
      // a plane's inverse depth is linear on the image: its second difference is 0 up to the horizon
      float dc = f.depth[row * f.width + col], ia = 1.0f / da, ib = 1.0f / db, ic = dc > 0.0f ? 1.0f / dc : 1e-4f;
      edge = fmaxf(edge, smoothstepf(0.12f, 0.35f, fabsf(ia + ib - 2.0f * ic) / fmaxf(ia, fmaxf(ib, ic))));
    } else if (object) {  // not on the ground, which recedes fast towards the horizon
      edge = fmaxf(edge, smoothstepf(0.05f, 0.14f, fabsf(da - db) / fminf(da, db)));
    }
    if (object) edge = fmaxf(edge, 0.8f * smoothstepf(0.3f, 0.8f, crease));
    if (f.mask[a] != f.mask[b]) edge = 1.0f;
  }
  return edge;
}

HD void style_pixel(const Frame &f, const float *scene, int row, int col) {
  int i = row * f.width + col;
  vec3 c = v3(f.display + 3 * i);
  int style = (int)scene[H_STYLE];
  if (style == 0) {  // photo: a lens darkens the corners; film has a little more contrast and warmth
    // a landscape goes on sideways, so that its brightness may depend on the height alone
    float x = scene[H_KIND] > 0.0f ? 0.0f : (col + 0.5f) / f.width - 0.5f, y = (row + 0.5f) / f.height - 0.5f;
    c = c * (1.0f - 0.24f * (x * x + y * y));
    vec3 s = {c.x * c.x * (3.0f - 2.0f * c.x), c.y * c.y * (3.0f - 2.0f * c.y), c.z * c.z * (3.0f - 2.0f * c.z)};
    c = mix(c, s, 0.12f) * v3(1.01f, 1.0f, 0.985f);
  } else if (style == 2) {  // pencil: graphite tone, soft diagonal hatching in the shade, outlines
    float l = luminance(c), scale = 256.0f / f.height;
    float soft = 0.5f * l + 0.125f * (luminance(display_at(f, row - 2, col)) + luminance(display_at(f, row + 2, col)) +
                                      luminance(display_at(f, row, col - 2)) + luminance(display_at(f, row, col + 2)));
    float hatch = sinf((row + col) * scale * 0.62f + 1.2f * noise2(col * scale * 0.03f, row * scale * 0.03f, 11u));
    float dark = 1.0f - soft;
    float paper = 0.965f - 0.5f * dark * dark - 0.06f * smoothstepf(0.3f, 0.8f, dark) * (0.5f + 0.5f * hatch) -
                  0.22f * dark;
    paper -= 0.55f * outline(f, scene[H_KIND] > 0.0f, row, col) * (0.9f + 0.1f * hatch);
    c = v3(paper * 1.0f, paper * 0.99f, paper * 0.965f);
  } else if (style == 3) {  // cartoon: flat tones, strong colors, dark outlines
    float l = luminance(c), levels = 4.0f, u = l * levels, base = floorf(u);
    float flat = (base + smoothstepf(0.35f, 0.65f, u - base)) / levels;
    vec3 tinted = c * ((0.35f * l + 0.65f * flat + 0.02f) / (l + 0.02f));
    c = mix(v3(luminance(tinted)), tinted, 1.3f);
    c = mix(c, v3(0.06f, 0.05f, 0.08f), 0.85f * outline(f, scene[H_KIND] > 0.0f, row, col));
  }
  for (int k = 0; k < 3; k++) {
    float value = k == 0 ? c.x : k == 1 ? c.y : c.z;
    f.color[3 * i + k] = (uint8_t)(saturate(value) * 255.0f + 0.5f);
  }
}

HD Frame frame_of(int n, int height, int width, int samples, float *display, float *depth, float *normal,
                  uint8_t *mask, uint8_t *color) {
  size_t k = (size_t)n * height * width;
  return {height, width, samples, display + 3 * k, depth + k, normal + 3 * k, mask + k, color + 3 * k};
}
