// The neuron's arithmetic, once, in the common subset of C++ and CUDA.
//
// The text that is compiled is: INPUT and STATE, the types of input and state; this header; the spike
// function (struct Function, rendered from its expressions); then kernel_cpu.h or kernel_cuda.h,
// which only drive the loops.
//
// Equations, with r = 1/tau, v_rest = v_reset or 0, and H the spike function:
//     charge  h = keep v + gain x + drift     LIF: keep = 1-r, gain = r or 1, drift = r v_rest
//                                             IF:  keep = gain = 1, drift = 0
//     fire    s = H(h - v_threshold), or the step, or between them: H + hardness (step - H)
//     reset   v = h - s (pull h + push)       hard: pull = 1, push = -v_reset
//                                             soft: pull = 0, push = v_threshold
// Backward, with g* the gradient of the loss with respect to *:
//     gs' = gs - pass gv (pull h + push)      pass = 0 if the reset is detached, else 1
//     gh  = gs' H'(h - v_threshold) + gv (1 - s pull)
//     gx  = gain gh,   gv[t-1] = keep gh
//     gr += gh dh/dr = gh (drive - (v - v_rest)), drive = x if the input decays, else 0
//     gp += gs' dH/dp for each parameter p of the spike function
// The backward pass needs x and v[0] alone: it runs the neuron forward once more.

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

// The functions that a spike function's expressions may use, in float and double.

HTAF_FN float abs(float x) { return from_bits(bits(x) & 0x7fffffffu); }
HTAF_FN double abs(double x) { return x < 0 ? -x : x; }

// exp(x), x <= 0 or NaN; relative error below 1e-6, never below exp(-87).
// Short chains of dependent operations matter here more than their number: Estrin's scheme.
HTAF_FN float exp_negative(float x) {
    x = -87.0f > x ? -87.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f;  // its low bits are round(x / ln 2)
    float r = x - (shifted - 12582912.0f) * 0.693147181f, r2 = r * r;
    float low = 1.000000072f + 9.999996918e-1f * r;  // minimax on |r| <= ln 2 / 2, 1.4e-7
    float middle = 4.999889441e-1f + 1.666757510e-1f * r;
    float high = 4.191543216e-2f + 8.297647945e-3f * r;
    float p = low + r2 * (middle + r2 * high);
    return from_bits(bits(p) + (bits(shifted) << 23));
}
HTAF_FN double exp_negative(double x) { return ::exp(x); }

HTAF_FN float exp(float x) { return ::expf(x); }
HTAF_FN double exp(double x) { return ::exp(x); }
HTAF_FN float log(float x) { return ::logf(x); }
HTAF_FN double log(double x) { return ::log(x); }
HTAF_FN float sqrt(float x) { return ::sqrtf(x); }
HTAF_FN double sqrt(double x) { return ::sqrt(x); }
HTAF_FN float sin(float x) { return ::sinf(x); }
HTAF_FN double sin(double x) { return ::sin(x); }
HTAF_FN float cos(float x) { return ::cosf(x); }
HTAF_FN double cos(double x) { return ::cos(x); }
HTAF_FN float atan(float x) { return ::atanf(x); }
HTAF_FN double atan(double x) { return ::atan(x); }
HTAF_FN float minimum(float x, float y) { return x < y ? x : y; }
HTAF_FN double minimum(double x, double y) { return x < y ? x : y; }
HTAF_FN float erfc(float x) { return ::erfcf(x); }
HTAF_FN double erfc(double x) { return ::erfc(x); }
HTAF_FN float pow(float x, float y) { return ::powf(x, y); }
HTAF_FN double pow(double x, double y) { return ::pow(x, y); }

template <class V> HTAF_FN V square(V x) { return x * x; }

template <class V> HTAF_FN V sigmoid(V z) {
    V e = exp_negative(-abs(z)), w = V(1) / (V(1) + e);
    return z >= V(0) ? w : e * w;
}

// The sigmoid's derivative, with a small relative error in both tails.
template <class V> HTAF_FN V sigmoid_derivative(V z) {
    V e = exp_negative(-abs(z)), w = V(1) / (V(1) + e);
    return e * w * w;
}

template <class V> HTAF_FN V tanh(V u) {
    V e = exp_negative(-abs(V(2) * u)), t = (V(1) - e) * (V(1) / (V(1) + e));
    return u < V(0) ? -t : t;
}

template <class V> HTAF_FN V step(V x) { return x != x ? x : (x >= V(0) ? V(1) : V(0)); }

// A layer, as its callers describe it.
struct Layer {
    i64 N;                    // neurons
    i64 channels, inner;      // neuron i has the parameters of channel (i / inner) % channels
    const R* parameters;      // [Function::parameters, channels]
    const R* reciprocal_tau;  // where it is learned; else null, and the number below
    double constant_reciprocal_tau, v_threshold, v_reset;
    double hardness;          // share of the step in the smooth output, in [0, 1]
    int charge;               // as below
    int soft_reset, detach_reset;
    const X* x;               // [T, N]
    const R* v0;              // [N]
};

// Its fields one by one, which every launcher knows how to pass.
#define LAYER_FIELDS                                                                          \
    i64 N, i64 channels, i64 inner, const R *parameters, const R *reciprocal_tau,             \
        double constant_reciprocal_tau, double v_threshold, double v_reset, double hardness,  \
        int charge, int soft_reset, int detach_reset, const X *x, const R *v0
#define LAYER                                                                                 \
    {N, channels, inner, parameters, reciprocal_tau, constant_reciprocal_tau, v_threshold,    \
     v_reset, hardness, charge, soft_reset, detach_reset, x, v0}

enum Charge { IF = 0, LIF = 1, LIF_INPUT_NOT_DECAYED = 2 };

// What a layer's neurons share.
struct Neuron {
    R keep, gain, drift, v_threshold, pull, push, pass, v_rest;
    R drive;  // 1 if the input decays, else 0
    R hardness;
};

HTAF_FN Neuron neuron(const Layer& a) {
    R r = a.reciprocal_tau ? *a.reciprocal_tau : R(a.constant_reciprocal_tau);
    Neuron n;
    n.v_rest = a.soft_reset ? R(0) : R(a.v_reset);
    n.keep = a.charge == IF ? R(1) : R(1) - r;
    n.gain = a.charge == LIF ? r : R(1);
    n.drift = a.charge == IF ? R(0) : r * n.v_rest;
    n.v_threshold = R(a.v_threshold);
    n.pull = a.soft_reset ? R(0) : R(1);
    n.push = a.soft_reset ? R(a.v_threshold) : -R(a.v_reset);
    n.pass = a.detach_reset ? R(0) : R(1);
    n.drive = a.charge == LIF ? R(1) : R(0);
    n.hardness = R(a.hardness);
    return n;
}

enum Mode { SOFT = 0, HARD = 1, STEP = 2 };  // STEP: the step with its own derivative, zero

HTAF_FN R charge(const Neuron& n, R x, R v) {
    return n.keep * v + (n.gain * x + n.drift);
}

template <class Function, int mode, class P> HTAF_FN R fire(const Neuron& n, R x, const P& p) {
    if (mode != SOFT) return step(x);
    R smooth = Function::primitive(x, p);
    return smooth + n.hardness * ((x >= R(0) ? R(1) : R(0)) - smooth);
}

HTAF_FN R reset(const Neuron& n, R h, R s) {
    return h - s * (n.pull * h + n.push);
}

}  // namespace htaf_snn
