// Types in memory, and the functions of the operations, in the common subset of C++ and CUDA.
//
// The text that is compiled is: INPUT and STATE, the types of input and state; this header; the
// traced step, which step/print.py prints; the struct of a call, which buffers.py prints; then
// kernel_cpu.h or kernel_cuda.h, which drive it over time.

#ifdef __CUDACC_RTC__
#define HTAF_METHOD __device__ __forceinline__
#define HTAF_FN static HTAF_METHOD
#else
#define HTAF_METHOD inline __attribute__((always_inline))
#define HTAF_FN static HTAF_METHOD
#endif

namespace htaf_snn {

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;

HTAF_FN u32 bits(float x) {
#ifdef __CUDACC_RTC__
    return __float_as_uint(x);
#else
    u32 u;
    __builtin_memcpy(&u, &x, 4);
    return u;
#endif
}

HTAF_FN float from_bits(u32 u) {
#ifdef __CUDACC_RTC__
    return __uint_as_float(u);
#else
    float x;
    __builtin_memcpy(&x, &u, 4);
    return x;
#endif
}

// Half precisions in memory; arithmetic is in float. Branch-free, so that loops vectorise.
struct bfloat16 { u16 u; };
struct float16 { u16 u; };

typedef INPUT X;  // of input and spikes
typedef STATE R;  // of the state: float, or double for double input

HTAF_FN float load(const float* p) { return *p; }
HTAF_FN double load(const double* p) { return *p; }
HTAF_FN float load(const bfloat16* p) { return from_bits((u32)p->u << 16); }
HTAF_FN float load(const float16* p) {
    u32 h = p->u, exponent_and_mantissa = (h & 0x7fffu) << 13, sign = (h & 0x8000u) << 16;
    float magnitude = from_bits(exponent_and_mantissa) * from_bits(0x77800000u);  // * 2^112
    u32 special = from_bits(exponent_and_mantissa) >= from_bits(0x0f800000u);     // inf or NaN
    u32 u = special ? (exponent_and_mantissa | 0x7f800000u) : bits(magnitude);
    return from_bits(u | sign);
}

HTAF_FN void store(float* p, float x) { *p = x; }
HTAF_FN void store(double* p, double x) { *p = x; }
HTAF_FN void store(bfloat16* p, float x) {
    u32 u = bits(x);
    u32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    p->u = (u16)(x != x ? 0x7fc0u : rounded);
}
HTAF_FN void store(float16* p, float x) {
    u32 u = bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    // Adding a power of two rounds subnormal halves; adding to the integer rounds the others.
    u32 subnormal = bits(from_bits(a) + from_bits(0x3f000000u)) - 0x3f000000u;
    u32 normal = (a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13;
    u32 finite = a < 0x38800000u ? subnormal : normal;
    u32 h = a >= 0x477ff000u ? 0x7c00u : finite;
    p->u = (u16)((a > 0x7f800000u ? 0x7e00u : h) | sign);
}

// The functions of a traced step's operations, in float and double. They have the names of the
// C library's; inside this namespace they hide those.

HTAF_FN float abs(float x) { return from_bits(bits(x) & 0x7fffffffu); }
HTAF_FN double abs(double x) { return x < 0 ? -x : x; }

// A magnitude with the sign of x.
HTAF_FN float with_sign_of(float x, float magnitude) {
    return from_bits(bits(magnitude) | (bits(x) & 0x80000000u));
}

// exp's polynomial on |r| <= ln 2 / 2 and the power of two: x = n ln 2 + r, n in the low bits.
// Short chains of dependent operations matter here more than their number: Estrin's scheme.
struct Reduced { float shifted, p; };
HTAF_FN Reduced reduce(float x) {
    Reduced of;
    of.shifted = x * 1.44269504f + 12582912.0f;  // its low bits are round(x / ln 2)
    float n = of.shifted - 12582912.0f;
    float r = x - n * 0.693147182f, r2 = r * r;
    float low = 1.000000072f + 9.999996918e-1f * r;  // minimax, 1.4e-7
    float middle = 4.999889441e-1f + 1.666757510e-1f * r;
    float high = 4.191543216e-2f + 8.297647945e-3f * r;
    of.p = low + r2 * (middle + r2 * high);
    return of;
}

// x between -limit and limit, or NaN. On integers: vector compilers make masks of comparisons of
// floats, and these cost more than all else that a sigmoid takes.
HTAF_FN float clamp(float x, float limit) {
    const u32 nans = 0x007fffffu;  // added, NaNs of either sign wrap around to what no limit cuts
    const int top = (int)(bits(limit) + nans);
    const u32 bottom = bits(-limit) + nans;
    const int below_top = (int)(bits(x) + nans) < top ? (int)(bits(x) + nans) : top;
    const u32 cut = (u32)below_top < bottom ? (u32)below_top : bottom;
    return from_bits(cut - nans);
}
HTAF_FN double clamp(double x, double limit) {
    const double y = -limit > x ? -limit : x;
    return y > limit ? limit : y;
}

// exp(x) of x between -87 and 87, and exp(-87) and exp(87) beyond; relative error below 5e-7, or
// 5e-6 far out on a processor without fused multiply-add. The power of two is multiplied, not added
// to the exponent: there, the low bits of a NaN would carry it over into a number.
HTAF_FN float exp_between(float x) {
    Reduced of = reduce(clamp(x, 87.0f));
    return of.p * from_bits((bits(of.shifted) << 23) + 0x3f800000u);
}
HTAF_FN double exp_between(double x) { return ::exp(clamp(x, 708.0)); }

// exp of any number: the power of two is multiplied in two halves, so that infinity, zero and the
// subnormals come out of themselves.
HTAF_FN float exp(float x) {
    float y = -105.0f > x ? -105.0f : x;
    Reduced of = reduce(y > 89.0f ? 89.0f : y);
    int n = (int)(bits(of.shifted) << 9) >> 9, half = n >> 1;
    return of.p * from_bits((u32)(half + 127) << 23) * from_bits((u32)(n - half + 127) << 23);
}
HTAF_FN double exp(double x) { return ::exp(x); }

#define HTAF_FROM_LIBRARY(name)                                  \
    HTAF_FN float name(float x) { return ::name##f(x); }         \
    HTAF_FN double name(double x) { return ::name(x); }
#define HTAF_FROM_LIBRARY_OF_TWO(name)                           \
    HTAF_FN float name(float x, float y) { return ::name##f(x, y); } \
    HTAF_FN double name(double x, double y) { return ::name(x, y); }
HTAF_FROM_LIBRARY(expm1)
HTAF_FROM_LIBRARY(log)
HTAF_FROM_LIBRARY(log1p)
HTAF_FROM_LIBRARY(sqrt)
HTAF_FROM_LIBRARY(sin)
HTAF_FROM_LIBRARY(cos)
HTAF_FROM_LIBRARY(tan)
HTAF_FROM_LIBRARY(asin)
HTAF_FROM_LIBRARY(acos)
HTAF_FROM_LIBRARY(sinh)
HTAF_FROM_LIBRARY(cosh)
HTAF_FROM_LIBRARY(floor)
HTAF_FROM_LIBRARY(ceil)
HTAF_FROM_LIBRARY(rint)
HTAF_FROM_LIBRARY(trunc)
HTAF_FROM_LIBRARY_OF_TWO(pow)
HTAF_FROM_LIBRARY_OF_TWO(atan2)
HTAF_FROM_LIBRARY_OF_TWO(fmod)

// The C library's atanf, erff and erfcf are calls, of one element each; these become vectors.

// pi / 2 - atan(1 / x) above 1, and a polynomial (minimax, 1.6e-8) below; within 2 ulp.
HTAF_FN float atan(float x) {
    const float a = abs(x);
    const bool above = a > 1.0f;
    const float t = (above ? 1.0f : a) / (above ? a : 1.0f);
    const float z = t * t, z2 = z * z, z4 = z2 * z2;
    float low = (9.999999848e-1f - 3.333307334e-1f * z) + z2 * (1.999261939e-1f - 1.420364442e-1f * z);
    float middle = 1.064093383e-1f - 7.504294129e-2f * z;
    float high = 4.269151441e-2f - 1.606862595e-2f * z + 2.849888867e-3f * z2;
    const float r = t * (low + z4 * (middle + z2 * high));
    return with_sign_of(x, above ? 1.57079633f - r : r);
}
HTAF_FN double atan(double x) { return ::atan(x); }

// exp(-x^2) times a polynomial (minimax, 3.3e-8) in (a - 2) / (a + 2), a = |x|; relative error below
// 1e-6, or 1e-5 far out in the tail.
HTAF_FN float erfc(float x) {
    const float all = abs(x), a = all > 10.0f ? 10.0f : all;
    const float u = (a - 2.0f) / (a + 2.0f), u2 = u * u, u4 = u2 * u2;
    float low = 2.553956810e-1f - 4.271859397e-1f * u + u2 * (2.416579606e-1f - 7.897601184e-2f * u);
    float middle = 3.734815605e-3f + 6.978573450e-3f * u
        + u2 * (-8.546519829e-4f - 9.271335054e-4f * u);
    float high = 6.317295961e-5f + 1.075220790e-4f * u;
    const float upper = exp_between(-a * a) * (low + u4 * (middle + u4 * high));
    return x < 0.0f ? 2.0f - upper : upper;
}
HTAF_FN double erfc(double x) { return ::erfc(x); }

HTAF_FN float erf(float x) {
    const float a = abs(x), z = a > 1.0f ? 1.0f : x * x, z2 = z * z;
    float low = 1.128379122f - 3.761232619e-1f * z;  // minimax, 4e-8
    float high = 1.128018011e-1f - 2.671131132e-2f * z
        + z2 * (4.917551437e-3f - 5.631422255e-4f * z);
    const float beyond = 1.0f - erfc(a);
    return a > 1.0f ? with_sign_of(x, beyond) : x * (low + z2 * high);
}
HTAF_FN double erf(double x) { return ::erf(x); }

// NaN where either is, as torch's.
template <class V> HTAF_FN V minimum(V x, V y) { return (x < y) | (x != x) ? x : y; }
template <class V> HTAF_FN V maximum(V x, V y) { return (x > y) | (x != x) ? x : y; }
template <class V> HTAF_FN V sign(V x) { return V(x > V(0)) - V(x < V(0)); }

template <class V> HTAF_FN V sigmoid(V z) { return V(1) / (V(1) + exp_between(-z)); }

// A little more than the least derivative of a sigmoid whose exponential is cut.
HTAF_FN float least_slope(float) { return 1.7e-38f; }
HTAF_FN double least_slope(double) { return 4e-308; }

// The sigmoid's derivative, with a small relative error in both tails, and 0 beyond them: what is
// left there times a potential of 1e38 would be a gradient.
template <class V> HTAF_FN V sigmoid_derivative(V z) {
    V e = exp_between(-z), w = V(1) / (V(1) + e);  // which a sigmoid of z shares
    V slope = e * w * w - least_slope(z);
    return V(0) > slope ? V(0) : slope;
}

template <class V> HTAF_FN V tanh(V u) {
    return V(2) * (V(1) / (V(1) + exp_between(V(-2) * u))) - V(1);
}

}  // namespace htaf_snn
