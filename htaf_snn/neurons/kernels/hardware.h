// Operations that a GPU has in hardware, in float; those of double are the common ones. A text that
// is compiled for a CPU instead, as the tests do, brings hardware_ex2 and hardware_rcp of its own.

namespace htaf_snn {

// A number of the layer, in a word of 8 bytes.
struct alignas(8) Number {
    R value;
    HTAF_METHOD operator R() const { return value; }
};

namespace hardware {

#ifdef __CUDACC_RTC__
// 2^x within 2^-22; subnormal results are 0.
HTAF_FN float ex2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1 / x within 2^-23; subnormal arguments and results are 0.
HTAF_FN float rcp(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
HTAF_FN float ex2(float x) { return ::hardware_ex2(x); }
HTAF_FN float rcp(float x) { return ::hardware_rcp(x); }
#endif

HTAF_FN float exp(float x) { return ex2(x * 1.44269504f); }
HTAF_FN double exp(double x) { return ::htaf_snn::exp(x); }

HTAF_FN float reciprocal(float x) { return rcp(x); }
HTAF_FN double reciprocal(double x) { return 1 / x; }

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
HTAF_FN double sigmoid(double z) { return ::htaf_snn::sigmoid(z); }

// With a small relative error in both tails, as the common one's.
HTAF_FN float sigmoid_derivative(float z) {
    const float e = exp_of_minus(z), w = rcp(1.0f + e);  // which a sigmoid of z shares
    return e * w * w;
}
HTAF_FN double sigmoid_derivative(double z) { return ::htaf_snn::sigmoid_derivative(z); }

HTAF_FN float tanh(float u) { return 2.0f * sigmoid(2.0f * u) - 1.0f; }
HTAF_FN double tanh(double u) { return ::htaf_snn::tanh(u); }

}  // namespace hardware

// WIDTH values next to each other in memory, read or written at once. Not by read-only loads: those
// a compiler does move, over the stores and back to where they are waited for.
template <class V> struct alignas(sizeof(V) * WIDTH) Pack { V of[WIDTH]; };
template <class V> HTAF_FN Pack<V> read(const V* p) { return *(const Pack<V>*)p; }

#ifdef __CUDACC_RTC__
HTAF_FN float number(float x) { return x; }
HTAF_FN double number(double x) { return x; }
HTAF_FN float number(bfloat16 x) { return load(&x); }
HTAF_FN float number(float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.u));
    return y;
}

HTAF_FN void round_to(float x, float& y) { y = x; }
HTAF_FN void round_to(double x, double& y) { y = x; }
HTAF_FN void round_to(float x, float16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.u) : "f"(x)); }
HTAF_FN void round_to(float x, bfloat16& y) {
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.u) : "f"(x));
#else
    store(&y, x);
#endif
}
#else
template <class V> HTAF_FN R number(V x) { return load(&x); }
template <class V> HTAF_FN void round_to(R x, V& y) { store(&y, x); }
#endif

}  // namespace htaf_snn
