// One thread a neuron on CUDA: T, a constant, steps in registers.
// Included after kernel.h and struct Function, with X (input and spikes), R (state) and STEPS defined.

namespace htaf_snn {

typedef long long i64;

struct Arguments {
    i64 N;                    // neurons
    i64 channels, inner;      // neuron i has the parameters of channel (i / inner) % channels
    const R* parameters;      // [Function::parameters, channels]
    const R* reciprocal_tau;  // where it is learned; else null, and the number below
    double constant_reciprocal_tau, v_threshold, v_reset;
    int charge, soft_reset, detach_reset;
    const X* x;               // [STEPS, N]
    const R* v0;              // [N]
};

HTAF_FN Neuron<R> neuron(const Arguments& a) {
    R r = a.reciprocal_tau ? *a.reciprocal_tau : R(a.constant_reciprocal_tau);
    R v_rest = a.soft_reset ? R(0) : R(a.v_reset);
    Neuron<R> n;
    n.keep = a.charge == 0 ? R(1) : R(1) - r;
    n.gain = a.charge == 1 ? r : R(1);
    n.drift = a.charge == 0 ? R(0) : r * v_rest;
    n.v_threshold = R(a.v_threshold);
    n.pull = a.soft_reset ? R(0) : R(1);
    n.push = a.soft_reset ? R(a.v_threshold) : -R(a.v_reset);
    n.pass = a.detach_reset ? R(0) : R(1);
    n.v_rest = v_rest;
    n.drive = a.charge == 1 ? R(1) : R(0);
    return n;
}

struct Parameters {
    const R* first;
    i64 channels;
    HTAF_METHOD R operator[](int k) const { return first[k * channels]; }
};

HTAF_FN Parameters parameters(const Arguments& a, i64 i) {
    Parameters p = {a.parameters + (i / a.inner) % a.channels, a.channels};
    return p;
}

template <int mode>
HTAF_FN void forward(const Arguments& a, X* spike, R* v_last, R* v_seq, i64 i) {
    const Neuron<R> n = neuron(a);
    const Parameters p = parameters(a, i);
    R v = a.v0[i];
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        i64 at = t * a.N + i;
        R h = charge(n, R(load(a.x + at)), v);
        R s = fire<Function, mode>(h - n.v_threshold, p);
        v = reset(n, h, s);
        store(spike + at, s);
        if (v_seq) v_seq[at] = v;
    }
    v_last[i] = v;
}

// grad_table is [Function::parameters + 1, N]: of each parameter and, last, of 1/tau.
template <int mode, bool LEARN>
HTAF_FN void backward(const Arguments& a, const X* grad_spike, const R* grad_v_last,
                      const R* grad_v_seq, X* grad_x, R* grad_v0, R* grad_table, i64 i) {
    const Neuron<R> n = neuron(a);
    const Parameters p = parameters(a, i);
    R ds[STEPS], dv[STEPS], kept_h[LEARN ? STEPS : 1], kept_v[LEARN ? STEPS : 1];
    R v = a.v0[i];
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        R h = charge(n, R(load(a.x + t * a.N + i)), v), z = h - n.v_threshold;
        R s = fire<Function, mode>(z, p), kick = n.pull * h + n.push;
        R d = mode == STEP ? R(0) : Function::derivative(z, p);
        if (LEARN) {
            kept_h[t] = h;
            kept_v[t] = v;
        }
        ds[t] = d;
        dv[t] = R(1) - s * n.pull - n.pass * kick * d;
        v = h - s * kick;
    }
    R gv = grad_v_last ? grad_v_last[i] : R(0), gr = R(0);
    R gp[Function::parameters + 1];
#pragma unroll
    for (int k = 0; k <= Function::parameters; ++k) gp[k] = R(0);
#pragma unroll
    for (int t = STEPS - 1; t >= 0; --t) {
        i64 at = t * a.N + i;
        if (grad_v_seq) gv += grad_v_seq[at];
        R gs = R(load(grad_spike + at)), gh = gs * ds[t] + gv * dv[t];
        if (LEARN) {
            if (mode != STEP && Function::learnable) {
                R total = gs - n.pass * gv * (n.pull * kept_h[t] + n.push);
#pragma unroll
                for (int k = 0; k < Function::parameters; ++k)
                    gp[k] += total * Function::parameter_derivative(k, kept_h[t] - n.v_threshold, p);
            }
            gr += gh * (n.drive * R(load(a.x + at)) - (kept_v[t] - n.v_rest));
        }
        store(grad_x + at, n.gain * gh);
        gv = n.keep * gh;
    }
    grad_v0[i] = gv;
    if (!LEARN) return;
    for (int k = 0; k < Function::parameters; ++k) grad_table[k * a.N + i] = gp[k];
    grad_table[Function::parameters * a.N + i] = gr;
}

HTAF_FN i64 this_neuron() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

}  // namespace htaf_snn

using namespace htaf_snn;

// Scalars and pointers one by one: every launcher knows how to pass those.
#define LAYER                                                                                   \
    i64 N, i64 channels, i64 inner, const R *parameters, const R *reciprocal_tau,               \
        double constant_reciprocal_tau, double v_threshold, double v_reset, int charge,         \
        int soft_reset, int detach_reset, const X *x, const R *v0
#define ARGUMENTS                                                                               \
    Arguments a = {N, channels, inner, parameters, reciprocal_tau, constant_reciprocal_tau,     \
                   v_threshold, v_reset, charge, soft_reset, detach_reset, x, v0};              \
    i64 i = this_neuron();                                                                      \
    if (i >= N) return;
#define FORWARD(name, mode)                                                                     \
    extern "C" __global__ void name(LAYER, X *spike, R *v_last, R *v_seq) {                     \
        ARGUMENTS                                                                               \
        htaf_snn::forward<mode>(a, spike, v_last, v_seq, i);                                    \
    }
#define BACKWARD(name, mode, learn)                                                             \
    extern "C" __global__ void name(LAYER, const X *grad_spike, const R *grad_v_last,           \
                                    const R *grad_v_seq, X *grad_x, R *grad_v0,                 \
                                    R *grad_table) {                                            \
        ARGUMENTS                                                                               \
        htaf_snn::backward<mode, learn>(a, grad_spike, grad_v_last, grad_v_seq, grad_x,         \
                                        grad_v0, grad_table, i);                                \
    }

FORWARD(forward_0, SOFT)
FORWARD(forward_1, HARD)
FORWARD(forward_2, STEP)
BACKWARD(backward_0_0, SOFT, false)
BACKWARD(backward_0_1, SOFT, true)
BACKWARD(backward_1_0, HARD, false)
BACKWARD(backward_1_1, HARD, true)
BACKWARD(backward_2_0, STEP, false)
BACKWARD(backward_2_1, STEP, true)
