// What the kernels on CUDA share: operations on float that a GPU has in hardware, pairs of 16-bit
// types, threads, channels. A text that is compiled for a CPU instead, as the tests do, brings
// hardware_ex2 and hardware_rcp of its own.

#define EACH(k, n) _Pragma("unroll") for (int k = 0; k < (n); ++k)
namespace htaf_snn {

// A number of the layer, in a word of 8 bytes.
struct alignas(8) Number {
    R value;
    HTAF_METHOD operator R() const { return value; }
};

// WIDTH values next to each other in memory, read or written at once. Not by read-only loads: those
// a compiler does move, over the stores and back to where they are waited for.
template <class V> struct alignas(sizeof(V) * WIDTH) Pack { V of[WIDTH]; };
template <class V> HTAF_FN Pack<V> read(const V* p) { return *(const Pack<V>*)p; }

template <class V> HTAF_FN R number(V x) { return load(&x); }
template <class V> HTAF_FN void round_to(R x, V& y) { store(&y, x); }
#ifdef __CUDACC_RTC__
template <> HTAF_METHOD R number(float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.u));
    return y;
}
template <> HTAF_METHOD void round_to(R x, float16& y) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.u) : "f"(float(x)));
}
#if __CUDA_ARCH__ >= 800
template <> HTAF_METHOD void round_to(R x, bfloat16& y) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.u) : "f"(float(x)));
}
#endif
#endif

// The sum over a block of 2^n threads, the same order every time.
template <class V> HTAF_FN V block_sum(V x) {
    __shared__ V row[MOST_THREADS];
    const unsigned thread = threadIdx.x;
    __syncthreads();
    row[thread] = x;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) row[thread] += row[thread + half];
    }
    __syncthreads();
    return row[0];
}

HTAF_FN i64 thread_number() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// The channel of element i, where `call` has channels of `inner` elements side by side.
template <class C> HTAF_FN i64 channel_of(const C& call, i64 i) {
    if (i >> 32 | call.inner >> 32) return i / call.inner % call.channels;
    return (u32)i / (u32)call.inner % (u32)call.channels;  // in a fifth of the time
}

namespace hardware {

#ifdef __CUDACC_RTC__
#define HTAF_IN_HARDWARE(name, instruction)                \
    HTAF_FN float name(float x) {                          \
        float y;                                           \
        asm(instruction " %0, %1;" : "=f"(y) : "f"(x));    \
        return y;                                          \
    }
#else
#define HTAF_IN_HARDWARE(name, instruction) \
    HTAF_FN float name(float x) { return ::hardware_##name(x); }
#endif
HTAF_IN_HARDWARE(ex2, "ex2.approx.ftz.f32")  // 2^x within 2^-22; subnormal results are 0
HTAF_IN_HARDWARE(rcp, "rcp.approx.ftz.f32")  // within 2^-23; subnormals are 0

HTAF_FN float exp(float x) { return ex2(x * 1.44269504f); }
HTAF_FN float reciprocal(float x) { return rcp(x); }

// exp(-z), at most 2^127, whose reciprocal is 0; or NaN.
HTAF_FN float exp_of_minus(float z) {
    float t = z * -1.44269504f;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("min.NaN.f32 %0, %0, 0f42FE0000;" : "+f"(t));
#else
    t = t > 127.0f ? 127.0f : t;
#endif
    return ex2(t);
}
HTAF_FN float sigmoid(float z) { return rcp(1.0f + exp_of_minus(z)); }
HTAF_FN float tanh(float u) { return 2.0f * sigmoid(2.0f * u) - 1.0f; }
HTAF_FN float sigmoid_derivative(float z) {
    const float e = exp_of_minus(z), w = rcp(1.0f + e);  // which a sigmoid of z shares
    return e * w * w;
}

}  // namespace hardware
}  // namespace htaf_snn
