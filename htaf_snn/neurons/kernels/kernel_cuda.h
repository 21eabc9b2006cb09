// One thread a neuron on CUDA: T, a constant, steps in registers.
// Included after kernel.h and a traced step's forward_step, record_step and backward_step, with
// STEPS defined.

namespace htaf_snn {

struct Values {
    R u[AT_LEAST_ONE(LAYER_VALUES)], c[AT_LEAST_ONE(NEURON_VALUES)];
};

HTAF_FN Values values_of(const Call& call, i64 i) {
    R p[AT_LEAST_ONE(PARAMETERS)];
#pragma unroll
    for (int k = 0; k < PARAMETERS; ++k)
        p[k] = call.parameters[k][(i / call.inner) % call.channels];
    Values found;
    values_of_layer(call, found.u);
    neuron_values(found.u, p, found.c);
    return found;
}

HTAF_FN void forward_neuron(const Forward& call, i64 i) {
    const Values v = values_of(call, i);
    R s[AT_LEAST_ONE(STATES)];
#pragma unroll
    for (int j = 0; j < STATES; ++j) s[j] = call.s0[j] ? call.s0[j][i] : R(call.rest[j]);
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        const i64 at = t * call.N + i;
        R x[AT_LEAST_ONE(INPUTS)], o[AT_LEAST_ONE(OUTPUTS)];
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) x[j] = R(load(call.x[j] + at));
        forward_step(v.u, v.c, x, s, o);
#pragma unroll
        for (int j = 0; j < OUTPUTS; ++j)
            if (call.o[j]) store(call.o[j] + at, o[j]);
#pragma unroll
        for (int j = 0; j < STATES; ++j)
            if (call.s_seq[j]) call.s_seq[j][at] = s[j];
    }
#pragma unroll
    for (int j = 0; j < STATES; ++j) call.last[j][i] = s[j];
}

HTAF_FN void backward_neuron(const Backward& call, i64 i) {
    const Values v = values_of(call, i);
    R s[AT_LEAST_ONE(STATES)], k[STEPS][AT_LEAST_ONE(KEPT)];
#pragma unroll
    for (int j = 0; j < STATES; ++j) s[j] = call.s0[j] ? call.s0[j][i] : R(call.rest[j]);
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        R x[AT_LEAST_ONE(INPUTS)];
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) x[j] = R(load(call.x[j] + t * call.N + i));
        record_step(v.u, v.c, x, s, k[t]);
    }
    R gs[AT_LEAST_ONE(STATES)], gp[AT_LEAST_ONE(LEARNED)];
#pragma unroll
    for (int j = 0; j < STATES; ++j) gs[j] = call.g_last[j] ? call.g_last[j][i] : R(0);
#pragma unroll
    for (int j = 0; j < LEARNED; ++j) gp[j] = R(0);
#pragma unroll
    for (int t = STEPS - 1; t >= 0; --t) {
        const i64 at = t * call.N + i;
        R x[AT_LEAST_ONE(INPUTS)], go[AT_LEAST_ONE(OUTPUTS)], gx[AT_LEAST_ONE(INPUTS)];
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) x[j] = R(load(call.x[j] + at));
#pragma unroll
        for (int j = 0; j < OUTPUTS; ++j) go[j] = R(load(call.go[j] + at));
#pragma unroll
        for (int j = 0; j < STATES; ++j)
            if (call.gs_seq[j]) gs[j] += call.gs_seq[j][at];
        backward_step(v.u, v.c, x, k[t], go, gs, gx, gp);
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) store(call.gx[j] + at, gx[j]);
    }
#pragma unroll
    for (int j = 0; j < STATES; ++j)
        if (call.gs0[j]) call.gs0[j][i] = gs[j];
#pragma unroll
    for (int j = 0; j < LEARNED; ++j) call.gp[j][i] += gp[j];
}

}  // namespace htaf_snn

extern "C" __global__ void forward(const htaf_snn::Forward call) {
    const htaf_snn::i64 i = (htaf_snn::i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < call.N) htaf_snn::forward_neuron(call, i);
}

extern "C" __global__ void backward(const htaf_snn::Backward call) {
    const htaf_snn::i64 i = (htaf_snn::i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < call.N) htaf_snn::backward_neuron(call, i);
}
