// IEEE half precision, stored; arithmetic goes through float, as in the kernels.
#pragma once
#include "simulator.h"

struct __half {
    uint16_t bits;
};
inline float __half2float(__half x) { return (float)std::bit_cast<_Float16>(x.bits); }
inline __half __float2half(float x) { return {std::bit_cast<uint16_t>((_Float16)x)}; }
struct __half2 {
    __half x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
