// softmax(q kᵀ / √d) v on tensor cores without ever storing the weights, (B heads, tokens, tokens): keys are read in
// tiles, the softmax is corrected as larger scores appear (Milakov and Gimelshein 2018), and backward computes the weights
// again (Dao et al. 2022). Memory grows with the number of tokens, not with its square.
//
// q, k and v lie packed, (B, tokens, 3, heads, d) with d a multiple of 8; heads are padded with zeros to D. A block of
// four warps has 64 rows of one head of one image, each warp 16 of them. Backward runs twice, once for queries and once
// for keys and values, so that every sum has one owner and a fixed order.
#include "tensor_cores.cuh"

constexpr int ROWS = 64; // of a block
constexpr float LOG2_E = 1.4426950408889634f;

// Where a block works.
struct Place {
    size_t first_row; // of this warp
    size_t head;      // of all heads of all images
    size_t stride;    // between tokens in the packed values
    size_t q;         // where the head's queries begin in the packed values
    size_t y;         // where its result begins
    size_t part;      // from queries to keys and from keys to values

    __device__ Place(size_t tokens, size_t heads, size_t d) {
        const size_t tiles = (tokens + ROWS - 1) / ROWS;
        head = blockIdx.x / tiles;
        first_row = blockIdx.x % tiles * ROWS + 16 * warp();
        part = heads * d;
        stride = 3 * part;
        y = head / heads * tokens * part + head % heads * d;
        q = head / heads * tokens * stride + head % heads * d;
    }
};

// The softmax of this warp's rows so far, in powers of two: of each half's row the largest score and the sum.
struct Softmax {
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    // Takes the scores of N keys from key `first` on and makes them weights before division; gives the factor by which
    // what was summed with the weights before has to shrink.
    template <int N>
    __device__ void take(float (&scores)[N / 8][4], float (&shrink)[2], size_t first, size_t tokens, float scale) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];
#pragma unroll
            for (int n = 0; n < N / 8; n++)
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    const size_t key = first + 8 * n + 2 * (lane() % 4) + i % 2;
                    scores[n][i] = key < tokens ? scores[n][i] * scale : -INFINITY;
                    most = fmaxf(most, scores[n][i]);
                }
            most = quad_max(most);
            shrink[half] = exp2f(largest[half] - most);
            sum[half] *= shrink[half];
#pragma unroll
            for (int n = 0; n < N / 8; n++)
                for (int i = 2 * half; i < 2 * half + 2; i++) sum[half] += scores[n][i] = exp2f(scores[n][i] - most);
            largest[half] = most;
        }
    }

    // To be called once, after the last key.
    __device__ void finish() {
        for (int half = 0; half < 2; half++) sum[half] = quad_sum(sum[half]);
    }
};

template <int D, typename T>
__device__ void attention(const T* qkv, T* y, size_t tokens, size_t heads, size_t d, float scale) {
    constexpr int KEYS = 64;
    alignas(16) __shared__ Row<T, D> keys[KEYS];
    alignas(16) __shared__ Row<T, D> values[KEYS];
    const Place at(tokens, heads, d);
    const T* q = qkv + at.q;
    const Held<D> queries(q, at.stride, at.first_row, tokens, d);
    float sums[D / 8][4] = {};
    Softmax softmax;
    for (size_t first = 0; first < tokens; first += KEYS) {
        __syncthreads();
        load_rows<KEYS, D>(keys, q + at.part, at.stride, first, tokens, d);
        load_rows<KEYS, D>(values, q + 2 * at.part, at.stride, first, tokens, d);
        __syncthreads();
        float scores[KEYS / 8][4], shrink[2];
        times_rows<KEYS, D, T>(scores, queries, keys);
        softmax.take<KEYS>(scores, shrink, first, tokens, scale * LOG2_E);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            for (int i = 0; i < 4; i++) sums[n][i] *= shrink[i / 2];
        unsigned weights[KEYS / 16][4];
        to_fragments<T, KEYS>(weights, scores);
        add_product<KEYS, D, T>(sums, weights, values);
    }
    softmax.finish();
    const float share[2] = {1 / softmax.sum[0], 1 / softmax.sum[1]};
    store_rows<D>(y + at.y, sums, share, at.part, at.first_row, tokens, d);
}

// The gradient of the queries: with p the weights, dp = dy vᵀ, ds = p (dp - Σ dy y), dq = ds k / √d. Leaves each row's
// largest score plus the logarithm of its sum, to base 2, and its Σ dy y for the other pass, (B heads, tokens) each.
template <int D, typename T>
__device__ void attention_dq(const T* qkv, const T* y, const T* dy, T* dqkv, float* log_sums, float* dots, size_t tokens,
                             size_t heads, size_t d, float scale) {
    constexpr int KEYS = D <= 64 ? 64 : 32;
    alignas(16) __shared__ Row<T, D> keys[KEYS];
    alignas(16) __shared__ Row<T, D> values[KEYS];
    const Place at(tokens, heads, d);
    const T* q = qkv + at.q;
    const Held<D> queries(q, at.stride, at.first_row, tokens, d);
    const Held<D> gradients(dy + at.y, at.part, at.first_row, tokens, d);

    Softmax softmax;
    for (size_t first = 0; first < tokens; first += KEYS) {
        __syncthreads();
        load_rows<KEYS, D>(keys, q + at.part, at.stride, first, tokens, d);
        __syncthreads();
        float scores[KEYS / 8][4], shrink[2];
        times_rows<KEYS, D, T>(scores, queries, keys);
        softmax.take<KEYS>(scores, shrink, first, tokens, scale * LOG2_E);
    }
    softmax.finish();
    float log_sum[2], dot[2] = {0, 0};
    for (int half = 0; half < 2; half++) {
        log_sum[half] = softmax.largest[half] + log2f(softmax.sum[half]);
        const size_t row = at.first_row + lane() / 4 + 8 * half;
        if (row < tokens)
            for (unsigned i = lane() % 4; i < d; i += 4)
                dot[half] += wide(dy[at.y + row * at.part + i]) * wide(y[at.y + row * at.part + i]);
        dot[half] = quad_sum(dot[half]);
        if (row < tokens && lane() % 4 == 0) {
            log_sums[at.head * tokens + row] = log_sum[half];
            dots[at.head * tokens + row] = dot[half];
        }
    }

    float sums[D / 8][4] = {};
    for (size_t first = 0; first < tokens; first += KEYS) {
        __syncthreads();
        load_rows<KEYS, D>(keys, q + at.part, at.stride, first, tokens, d);
        load_rows<KEYS, D>(values, q + 2 * at.part, at.stride, first, tokens, d);
        __syncthreads();
        float scores[KEYS / 8][4], dweights[KEYS / 8][4];
        times_rows<KEYS, D, T>(scores, queries, keys);
        times_rows<KEYS, D, T>(dweights, gradients, values);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            for (int i = 0; i < 4; i++) {
                const bool there = first + 8 * n + 2 * (lane() % 4) + i % 2 < tokens;
                const float weight = there ? exp2f(scores[n][i] * scale * LOG2_E - log_sum[i / 2]) : 0;
                scores[n][i] = weight * (dweights[n][i] - dot[i / 2]);
            }
        unsigned dscores[KEYS / 16][4];
        to_fragments<T, KEYS>(dscores, scores);
        add_product<KEYS, D, T>(sums, dscores, keys);
    }
    const float factor[2] = {scale, scale};
    store_rows<D>(dqkv + at.q, sums, factor, at.stride, at.first_row, tokens, d);
}

// The gradients of keys and values, dk = dsᵀ q / √d and dv = pᵀ dy: rows are keys here, and queries are read in tiles.
template <int D, typename T>
__device__ void attention_dkv(const T* qkv, const T* dy, const float* log_sums, const float* dots, T* dqkv,
                              size_t tokens, size_t heads, size_t d, float scale) {
    // So that all of it stays within the 48 kB that a block has without asking for more.
    constexpr int QUERIES = D <= 64 ? 64 : D <= 96 ? 32 : 16;
    alignas(16) __shared__ Row<T, D> keys[ROWS];
    alignas(16) __shared__ Row<T, D> values[ROWS];
    alignas(16) __shared__ Row<T, D> queries[QUERIES];
    alignas(16) __shared__ Row<T, D> gradients[QUERIES];
    __shared__ float log_sum[QUERIES], dot[QUERIES];
    const Place at(tokens, heads, d);
    const T* q = qkv + at.q;
    const size_t first_key = at.first_row - 16 * warp();
    load_rows<ROWS, D>(keys, q + at.part, at.stride, first_key, tokens, d);
    load_rows<ROWS, D>(values, q + 2 * at.part, at.stride, first_key, tokens, d);
    auto key = [&](unsigned(&a)[4], int k) { fragment<D, T>(a, keys + 16 * warp(), k); };
    auto value = [&](unsigned(&a)[4], int k) { fragment<D, T>(a, values + 16 * warp(), k); };
    float dkeys[D / 8][4] = {}, dvalues[D / 8][4] = {};
    for (size_t first = 0; first < tokens; first += QUERIES) {
        __syncthreads();
        load_rows<QUERIES, D>(queries, q, at.stride, first, tokens, d);
        load_rows<QUERIES, D>(gradients, dy + at.y, at.part, first, tokens, d);
        for (unsigned i = threadIdx.x; i < QUERIES; i += blockDim.x) {
            const bool there = first + i < tokens;
            // The weights of queries that are not there are 0.
            log_sum[i] = there ? log_sums[at.head * tokens + first + i] : INFINITY;
            dot[i] = there ? dots[at.head * tokens + first + i] : 0;
        }
        __syncthreads();
        float weights[QUERIES / 8][4], dscores[QUERIES / 8][4];
        times_rows<QUERIES, D, T>(weights, key, queries);
        times_rows<QUERIES, D, T>(dscores, value, gradients);
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n++)
            for (int i = 0; i < 4; i++) {
                const unsigned column = 8 * n + 2 * (lane() % 4) + i % 2;
                weights[n][i] = exp2f(weights[n][i] * scale * LOG2_E - log_sum[column]);
                dscores[n][i] = weights[n][i] * (dscores[n][i] - dot[column]);
            }
        unsigned a[QUERIES / 16][4];
        to_fragments<T, QUERIES>(a, weights);
        add_product<QUERIES, D, T>(dvalues, a, gradients);
        to_fragments<T, QUERIES>(a, dscores);
        add_product<QUERIES, D, T>(dkeys, a, queries);
    }
    const float of_keys[2] = {scale, scale}, of_values[2] = {1, 1};
    store_rows<D>(dqkv + at.q + at.part, dkeys, of_keys, at.stride, at.first_row, tokens, d);
    store_rows<D>(dqkv + at.q + 2 * at.part, dvalues, of_values, at.stride, at.first_row, tokens, d);
}

#define DEFINE(D, name, T)                                                                                           \
    extern "C" __global__ void __launch_bounds__(128) attention_##D##_##name(                                        \
        const T* qkv, T* y, size_t tokens, size_t heads, size_t d, float scale) {                                    \
        attention<D>(qkv, y, tokens, heads, d, scale);                                                               \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_##D##_##name(                                     \
        const T* qkv, const T* y, const T* dy, T* dqkv, float* log_sums, float* dots, size_t tokens, size_t heads,   \
        size_t d, float scale) {                                                                                     \
        attention_dq<D>(qkv, y, dy, dqkv, log_sums, dots, tokens, heads, d, scale);                                  \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(128) attention_dkv_##D##_##name(                                    \
        const T* qkv, const T* dy, const float* log_sums, const float* dots, T* dqkv, size_t tokens, size_t heads,   \
        size_t d, float scale) {                                                                                     \
        attention_dkv<D>(qkv, dy, log_sums, dots, dqkv, tokens, heads, d, scale);                                    \
    }
#define FOR_EACH_HALF(D) DEFINE(D, f16, __half) DEFINE(D, bf16, __nv_bfloat16)
FOR_EACH_HALF(32)
FOR_EACH_HALF(64)
FOR_EACH_HALF(96)
FOR_EACH_HALF(128)
