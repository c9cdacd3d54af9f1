// bfloat16, stored: the upper half of a float.
#pragma once
#include "simulator.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return std::bit_cast<float>((uint32_t)x.bits << 16); }
inline __nv_bfloat16 __float2bfloat16(float x) {
    if (x != x) return {0x7fff};
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return {(uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)}; // to nearest, ties to even
}
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }
