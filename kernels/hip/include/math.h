/* The part of <math.h> that kernels use, for device code: it is compiled without a C library. The
 * compiler expands what it knows; tanh it does not know. */
#pragma once

#define ATTN_MATH __attribute__((device)) inline

ATTN_MATH float fmaxf(float a, float b) {
  return __builtin_fmaxf(a, b);
}
ATTN_MATH float fminf(float a, float b) {
  return __builtin_fminf(a, b);
}
ATTN_MATH float fabsf(float x) {
  return __builtin_fabsf(x);
}
ATTN_MATH float expf(float x) {
  return __builtin_expf(x);
}
ATTN_MATH float exp(float x) {
  return __builtin_expf(x);
}
ATTN_MATH float logf(float x) {
  return __builtin_logf(x);
}
ATTN_MATH double floor(double x) {
  return __builtin_floor(x);
}

/* Odd in x. Near 0, where the difference of exponentials would cancel, tanh is its series, whose
 * first term left out is below a hundredth of an ulp at the bound. */
ATTN_MATH float tanh(float x) {
  const float a = __builtin_fabsf(x);
  if (a < 0.25f) {
    const float s = x * x;
    float p = -1382.0f / 155925.0f + s * (21844.0f / 6081075.0f);
    p = 62.0f / 2835.0f + s * p;
    p = -17.0f / 315.0f + s * p;
    p = 2.0f / 15.0f + s * p;
    p = -1.0f / 3.0f + s * p;
    return x + x * (s * p);
  }
  const float t = 1.0f - 2.0f / (__builtin_expf(2.0f * a) + 1.0f);
  return __builtin_copysignf(x != x ? x : t, x);
}

#undef ATTN_MATH
