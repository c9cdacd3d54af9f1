// Products on tensor cores: a warp multiplies tiles of 16-bit values that lie in shared memory and adds them up in f32.
//
// mma.sync.m16n8k16 multiplies a (16, 16) by b (16, 8). Of a, a lane holds four pairs of neighbours in a row: rows
// lane / 4 and 8 below, columns 2 (lane % 4) and 8 to the right, in the order of ldmatrix. Of the sums (16, 8) it holds
// the pairs at columns 2 (lane % 4) of the same two rows. So sums become the next product's a where they are.
#pragma once
#include "common.cuh"

#ifdef __CUDACC__
// On chips before Ampere the sums are no numbers, so that the trial refuses the kernel.
#if __CUDA_ARCH__ >= 800
#define MMA(type)                                                                                                    \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
        "{%0, %1, %2, %3};"                                                                                          \
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                                 \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
#else
#define MMA(type) sums[0] = sums[1] = sums[2] = sums[3] = NAN
#endif
template <typename T>
__device__ inline void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
template <>
__device__ inline void multiply_add<__half>(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    MMA("f16");
}
template <>
__device__ inline void multiply_add<__nv_bfloat16>(
    float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    MMA("bf16");
}

// Four 8 by 8 matrices; lane i names row i % 8 of matrix i / 8, whose 8 values lie together.
template <bool TRANSPOSED, typename T>
__device__ inline void load_matrices(unsigned (&to)[4], const T* row) {
    const unsigned from = (unsigned)__cvta_generic_to_shared(row);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from));
}

// Starts a copy of 4 or 16 bytes to shared memory, or of zeros where nothing is to be read. Before Ampere none arrives.
template <unsigned BYTES>
__device__ inline void copy_async(void* to, const void* from, bool there) {
#if __CUDA_ARCH__ >= 800
    const unsigned to_shared = (unsigned)__cvta_generic_to_shared(to);
    const size_t from_global = __cvta_generic_to_global(from);
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :
                     : "r"(to_shared), "l"(from_global), "r"(there ? BYTES : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                     :
                     : "r"(to_shared), "l"(from_global), "r"(there ? BYTES : 0)
                     : "memory");
#endif
}

// For the copies that this thread has started.
__device__ inline void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// blockIdx.x, anew at each call: what depends on it is computed again rather than kept in registers.
__device__ inline unsigned block() {
    unsigned x;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    return x;
}

// 2^x without exp2f's care for results below the least normal number, which become 0.
__device__ inline float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
#include "tensor_cores_on_host.h"
#endif

// Of a block.
constexpr unsigned THREADS = 128;

__device__ inline unsigned pair(float low, float high, __half) {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&both);
}
__device__ inline unsigned pair(float low, float high, __nv_bfloat16) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&both);
}

// Rows of D values in shared memory. The 16 bytes between rows spread a column over the banks.
template <typename T, int D>
using Row = T[D + 8];

// Starts copies to shared memory: rows of `width` values (at most D, a multiple of 8, as is `stride`), zeros beyond them.
template <int ROWS, int D, typename T>
__device__ inline void copy_rows(
    Row<T, D>* to, const T* from, unsigned stride, unsigned first, unsigned rows, unsigned width) {
    constexpr unsigned AT_ONCE = 8, PIECES = D / AT_ONCE;
#pragma unroll
    for (unsigned round = 0; round < (ROWS * PIECES + THREADS - 1) / THREADS; round++) {
        const unsigned i = round * THREADS + threadIdx.x, row = i / PIECES, column = i % PIECES * AT_ONCE;
        if (ROWS * PIECES % THREADS != 0 && row >= ROWS) break;
        // In bytes, so that one instruction makes the address.
        const auto bytes = reinterpret_cast<const char*>(from + column);
        const bool there = first + row < rows && column < width;
        copy_async<16>(&to[row][column], bytes + (size_t)(first + row) * (stride * (unsigned)sizeof(T)), there);
    }
}

// The same of single values.
template <int ROWS>
__device__ inline void copy_values(float* to, const float* from, unsigned first, unsigned rows) {
    static_assert(ROWS <= THREADS);
    if (threadIdx.x >= ROWS) return;
    const unsigned row = first + threadIdx.x;
    copy_async<4>(&to[threadIdx.x], from + row, row < rows);
}

// Goes through `count` rows in tiles of N, of which `copy` starts the copies and which `use` then reads, either at one of
// two stages in turn: one tile arrives while the other is used. The caller has started the first, at stage 0.
template <int N, typename Copy, typename Use>
__device__ inline void in_tiles(unsigned count, const Copy& copy, const Use& use) {
    unsigned stage = 0;
#pragma unroll 1
    for (unsigned first = 0; first < count; first += N, stage ^= 1) {
        wait_for_copies();
        __syncthreads(); // the copies of all have arrived, and nobody reads the other stage any more
        if (first + N < count) copy(stage ^ 1, first + N);
        use(stage, first);
    }
}

// Columns 16 k to 16 k + 15 of 16 rows in shared memory, as a.
template <int D, typename T>
__device__ inline void fragment(unsigned (&a)[4], const Row<T, D>* rows, unsigned k) {
    load_matrices<false>(a, &rows[lane() % 16][16 * k + lane() / 16 * 8]);
}

// Transposes a matrix of which each of four neighbouring lanes holds a row: between pieces of 16 bytes as memory has them
// and the pairs at columns 2 (lane % 4) of four pieces.
__device__ inline void transpose(unsigned (&words)[4]) {
#pragma unroll
    for (unsigned bit = 1; bit <= 2; bit *= 2) {
        const bool upper = lane() & bit;
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            if (i & bit) continue;
            const unsigned other = __shfl_xor_sync(0xffffffffu, upper ? words[i] : words[i | bit], bit);
            words[i] = upper ? other : words[i];
            words[i | bit] = upper ? words[i | bit] : other;
        }
    }
}

// 16 rows of a warp in its registers, as a.
template <int D>
struct Held {
    unsigned pairs[D / 16][4];

    // From global memory, from row `first` on; zeros beyond them.
    template <typename T>
    __device__ Held(const T* from, unsigned stride, unsigned first, unsigned rows, unsigned width) {
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int k = 0; k < D / 16; k += 2) {
                const unsigned row = first + lane() / 4 + 8 * half, column = 16 * k + 8 * (lane() % 4);
                uint4 piece = {0, 0, 0, 0};
                if (row < rows && column < width)
                    piece = *reinterpret_cast<const uint4*>(from + (size_t)row * stride + column);
                pairs[k][half] = piece.x, pairs[k][half + 2] = piece.y;
                pairs[k + 1][half] = piece.z, pairs[k + 1][half + 2] = piece.w;
            }
        // Only now, so that all pieces are on their way at once.
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int k = 0; k < D / 16; k += 2) {
                unsigned words[4] = {pairs[k][half], pairs[k][half + 2], pairs[k + 1][half], pairs[k + 1][half + 2]};
                transpose(words);
                pairs[k][half] = words[0], pairs[k][half + 2] = words[1];
                pairs[k + 1][half] = words[2], pairs[k + 1][half + 2] = words[3];
            }
    }

    __device__ void operator()(unsigned (&a)[4], int k) const {
        for (int i = 0; i < 4; i++) a[i] = pairs[k][i];
    }
};

// A size that the compiler knows.
template <int N>
struct Size {
    static constexpr int value = N;
};

// Calls `use` with the smallest of MOST, MOST / 2, ..., 16 that is not below `count`: what lies beyond costs little.
template <int MOST, typename Use>
__device__ inline void with_size_of(unsigned count, const Use& use) {
    if constexpr (MOST > 16)
        if (count <= MOST / 2) return with_size_of<MOST / 2>(count, use);
    use(Size<MOST>());
}

// Sums of N columns as a of the next product.
template <typename T, int N>
__device__ inline void to_fragments(unsigned (&a)[N / 16][4], const float (&sums)[N / 8][4]) {
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = pair(sums[2 * k + i / 2][i % 2 * 2], sums[2 * k + i / 2][i % 2 * 2 + 1], T());
}

// sums (16, N) += a (16, D) times the transposed rows (N, D); fragment_of(a, k) gives a.
template <int N, int D, typename T, typename Fragment>
__device__ inline void add_times_rows(float (&sums)[N / 8][4], const Fragment& fragment_of, const Row<T, D>* rows) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[4], b[4];
        fragment_of(a, k);
#pragma unroll
        for (int n = 0; n < N / 8; n += 2) {
            load_matrices<false>(b, &rows[8 * n + lane() / 16 * 8 + lane() % 8][16 * k + lane() / 8 % 2 * 8]);
            multiply_add<T>(sums[n], a, b[0], b[1]);
            multiply_add<T>(sums[n + 1], a, b[2], b[3]);
        }
    }
}

// sums (16, D) += a (16, N) times rows (N, D).
template <int N, int D, typename T>
__device__ inline void add_product(float (&sums)[D / 8][4], const unsigned (&a)[N / 16][4], const Row<T, D>* rows) {
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned b[4];
            load_matrices<true>(b, &rows[16 * k + lane() % 16][8 * n + lane() / 16 * 8]);
            multiply_add<T>(sums[n], a[k], b[0], b[1]);
            multiply_add<T>(sums[n + 1], a[k], b[2], b[3]);
        }
}

// factor[half] * sums of this warp's 16 rows to global memory, rounded, 16 bytes at once; `half` tells rows 0 to 7 from 8 to 15.
template <int D, typename T>
__device__ inline void store_rows(
    T* to, const float (&sums)[D / 8][4], const float (&factor)[2], unsigned stride, unsigned first, unsigned rows,
    unsigned width) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const unsigned row = first + lane() / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < D / 8; n += 4) {
            const unsigned column = 8 * (n + lane() % 4);
            unsigned words[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                words[i] = pair(
                    sums[n + i][2 * half] * factor[half], sums[n + i][2 * half + 1] * factor[half], T());
            transpose(words);
            if (row < rows && column < width)
                *reinterpret_cast<uint4*>(to + (size_t)row * stride + column) = {words[0], words[1], words[2], words[3]};
        }
    }
}

// Over the four lanes that share a row of sums.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// Of each row with its counterpart, of both halves; the four lanes that share a row all get it.
template <typename T, int D>
__device__ inline void row_products(float (&products)[2], const Held<D>& a, const Held<D>& b) {
    products[0] = products[1] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x[2], y[2];
            load(x, reinterpret_cast<const T*>(&a.pairs[k][i]));
            load(y, reinterpret_cast<const T*>(&b.pairs[k][i]));
            products[i % 2] += x[0] * y[0] + x[1] * y[1];
        }
#pragma unroll
    for (int half = 0; half < 2; half++) products[half] = quad_sum(products[half]);
}
