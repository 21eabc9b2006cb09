// One thread a neuron on CUDA: T, a constant, steps in registers.
// Included after kernel.h and struct Function, with STEPS defined.

namespace htaf_snn {

struct Parameters {
    const R* first;
    i64 channels;
    HTAF_METHOD R operator[](int k) const { return first[k * channels]; }
};

HTAF_FN Parameters parameters(const Layer& a, i64 i) {
    Parameters p = {a.parameters + (i / a.inner) % a.channels, a.channels};
    return p;
}

template <int mode>
HTAF_FN void forward(const Layer& a, X* spike, R* v_last, R* v_seq, i64 i) {
    const Neuron n = neuron(a);
    const Parameters p = parameters(a, i);
    R v = a.v0[i];
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        i64 at = t * a.N + i;
        R h = charge(n, R(load(a.x + at)), v);
        R s = fire<Function, mode>(n, h - n.v_threshold, p);
        v = reset(n, h, s);
        store(spike + at, s);
        if (v_seq) v_seq[at] = v;
    }
    v_last[i] = v;
}

// grad_table is [Function::parameters + 1, N]: of each parameter and, last, of 1/tau.
template <int mode, bool LEARN>
HTAF_FN void backward(const Layer& a, const X* grad_spike, const R* grad_v_last,
                      const R* grad_v_seq, X* grad_x, R* grad_v0, R* grad_table, i64 i) {
    const Neuron n = neuron(a);
    const Parameters p = parameters(a, i);
    R ds[STEPS], dv[STEPS], kept_h[LEARN ? STEPS : 1], kept_v[LEARN ? STEPS : 1];
    R v = a.v0[i];
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        R h = charge(n, R(load(a.x + t * a.N + i)), v), z = h - n.v_threshold;
        R s = fire<Function, mode>(n, z, p), kick = n.pull * h + n.push;
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

#define THIS_NEURON           \
    const Layer a = LAYER;    \
    i64 i = this_neuron();    \
    if (i >= N) return;
#define FORWARD(name, mode)                                                                     \
    extern "C" __global__ void name(LAYER_FIELDS, X *spike, R *v_last, R *v_seq) {                     \
        THIS_NEURON                                                                             \
        htaf_snn::forward<mode>(a, spike, v_last, v_seq, i);                                    \
    }
#define BACKWARD(name, mode, learn)                                                             \
    extern "C" __global__ void name(LAYER_FIELDS, const X *grad_spike, const R *grad_v_last,           \
                                    const R *grad_v_seq, X *grad_x, R *grad_v0,                 \
                                    R *grad_table) {                                            \
        THIS_NEURON                                                                             \
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
