// One thread for WIDTH neurons next to each other on CUDA, and STEPS steps, in registers. All loads
// come first: a compiler moves none over a store, and a thread would wait for memory at each step.
// Included after kernel.h, hardware.h and a traced step's forward_step, record_step and
// backward_step, with STEPS, WIDTH, WRITES_OUTPUTS and SEQUENCES defined.

namespace htaf_snn {

struct Values {
    R u[AT_LEAST_ONE(LAYER_VALUES)], c[WIDTH][AT_LEAST_ONE(NEURON_VALUES)];
};

HTAF_FN void values_of_layer(const Call& call, const Number* live, R* u) {
    double n[AT_LEAST_ONE(NUMBERS)];
#pragma unroll
    for (int k = 0; k < NUMBERS; ++k) {
        const R* at = k < NUMBERS - UNIFORM ? nullptr : call.number_at[k - (NUMBERS - UNIFORM)];
        n[k] = at ? *at : live ? R(live[k]) : R(call.numbers[k]);
    }
    layer_values(n, u);
}

HTAF_FN i64 channel_of(const Call& call, i64 i) {
    if (i >> 32 | call.inner >> 32) return i / call.inner % call.channels;
    return (u32)i / (u32)call.inner % (u32)call.channels;  // in a fifth of the time
}

HTAF_FN Values values_of(const Call& call, const Number* live, i64 i) {
    Values found;
    values_of_layer(call, live, found.u);
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
        R p[AT_LEAST_ONE(PARAMETERS)];
        const i64 channel = PARAMETERS ? channel_of(call, i + w) : 0;
#pragma unroll
        for (int k = 0; k < PARAMETERS; ++k) p[k] = call.parameters[k][channel];
        neuron_values(found.u, p, found.c[w]);
    }
    return found;
}

// The states of neurons i to i + WIDTH before the first step.
HTAF_FN void first_states(const Call& call, i64 i, R (*s)[AT_LEAST_ONE(STATES)]) {
#pragma unroll
    for (int j = 0; j < STATES; ++j) {
        Pack<R> found;
        if (call.s0[j]) found = read(call.s0[j] + i);
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) s[w][j] = call.s0[j] ? found.of[w] : R(call.rest[j]);
    }
}

template <class V, int MANY> HTAF_FN void write(V* const* to, i64 at, const R (*values)[MANY], int j) {
    Pack<V> made;
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) round_to(values[w][j], made.of[w]);
    *(Pack<V>*)(to[j] + at) = made;
}

HTAF_FN void forward_neurons(const GridForward& call, i64 i) {
    Pack<X> in[STEPS][AT_LEAST_ONE(INPUTS)];
#pragma unroll
    for (int t = 0; t < STEPS; ++t)
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) in[t][j] = read(call.x[j] + t * call.N + i);
    R s[WIDTH][AT_LEAST_ONE(STATES)];
    first_states(call, i, s);
    const Values v = values_of(call, call.live, i);
#pragma unroll
    for (int t = 0; t < STEPS; ++t) {
        R o[WIDTH][AT_LEAST_ONE(OUTPUTS)];
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) {
            R x[AT_LEAST_ONE(INPUTS)];
#pragma unroll
            for (int j = 0; j < INPUTS; ++j) x[j] = number(in[t][j].of[w]);
            forward_step(v.u, v.c[w], x, s[w], o[w]);
        }
        const i64 at = t * call.N + i;
#pragma unroll
        for (int j = 0; j < OUTPUTS && WRITES_OUTPUTS; ++j) write(call.o, at, o, j);
#pragma unroll
        for (int j = 0; j < STATES; ++j)
            if (SEQUENCES >> j & 1) write(call.s_seq, at, s, j);
    }
#pragma unroll
    for (int j = 0; j < STATES; ++j) write(call.last, i, s, j);
}

HTAF_FN void backward_neurons(
    const Backward& call, const Values& v, i64 i, R (*gp)[AT_LEAST_ONE(LEARNED)]
) {
    Pack<X> in[STEPS][AT_LEAST_ONE(INPUTS)], grad[STEPS][AT_LEAST_ONE(OUTPUTS)];
    Pack<R> grad_s[STEPS][AT_LEAST_ONE(STATES)];
#pragma unroll
    for (int t = 0; t < STEPS; ++t)
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) in[t][j] = read(call.x[j] + t * call.N + i);
#pragma unroll
    for (int t = STEPS - 1; t >= 0; --t) {
#pragma unroll
        for (int j = 0; j < OUTPUTS; ++j) grad[t][j] = read(call.go[j] + t * call.N + i);
#pragma unroll
        for (int j = 0; j < STATES; ++j)
            if (SEQUENCES >> j & 1) grad_s[t][j] = read(call.gs_seq[j] + t * call.N + i);
    }
    R s[WIDTH][AT_LEAST_ONE(STATES)], gs[WIDTH][AT_LEAST_ONE(STATES)];
    R k[WIDTH][STEPS][AT_LEAST_ONE(KEPT)];
    first_states(call, i, s);
#pragma unroll
    for (int j = 0; j < STATES; ++j) {
        Pack<R> last;
        if (call.g_last[j]) last = read(call.g_last[j] + i);
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) gs[w][j] = call.g_last[j] ? last.of[w] : R(0);
    }
#pragma unroll
    for (int t = 0; t < STEPS; ++t)
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) {
            R x[AT_LEAST_ONE(INPUTS)];
#pragma unroll
            for (int j = 0; j < INPUTS; ++j) x[j] = number(in[t][j].of[w]);
            record_step(v.u, v.c[w], x, s[w], k[w][t]);
        }
#pragma unroll
    for (int t = STEPS - 1; t >= 0; --t) {
        R gx[WIDTH][AT_LEAST_ONE(INPUTS)];
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) {
            R x[AT_LEAST_ONE(INPUTS)], go[AT_LEAST_ONE(OUTPUTS)];
#pragma unroll
            for (int j = 0; j < INPUTS; ++j) x[j] = number(in[t][j].of[w]);
#pragma unroll
            for (int j = 0; j < OUTPUTS; ++j) go[j] = number(grad[t][j].of[w]);
#pragma unroll
            for (int j = 0; j < STATES; ++j)
                if (SEQUENCES >> j & 1) gs[w][j] += grad_s[t][j].of[w];
            backward_step(v.u, v.c[w], x, k[w][t], go, gs[w], gx[w], gp[w]);
        }
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) write(call.gx, t * call.N + i, gx, j);
    }
#pragma unroll
    for (int j = 0; j < STATES; ++j)
        if (call.gs0[j]) write(call.gs0, i, gs, j);
}

// The sum over a block of 2^n threads, at its first thread; the same order every time.
template <class V> HTAF_FN V block_sum(V x) {
    __shared__ V row[MOST_THREADS];
    const int thread = (int)threadIdx.x;
    __syncthreads();
    row[thread] = x;
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) row[thread] += row[thread + half];
    }
    return row[0];
}

}  // namespace htaf_snn

extern "C" __global__ void forward(
    const htaf_snn::GridForward call
) {
    const htaf_snn::i64 i = ((htaf_snn::i64)blockIdx.x * blockDim.x + threadIdx.x) * WIDTH;
    if (i < call.N) htaf_snn::forward_neurons(call, i);
}

// Where parameters are learned, a thread has all neurons `call.period` from each other, which are of
// one channel, and leaves the sum of their gradients: by thread, or by block where all channels
// share a parameter.
extern "C" __global__ void backward(
    const htaf_snn::GridBackward call
) {
    using namespace htaf_snn;
    const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * WIDTH;
    R gp[WIDTH][AT_LEAST_ONE(LEARNED)] = {};
    if (!LEARNED) {
        if (i < call.N) backward_neurons(call, values_of(call, call.live, i), i, gp);
        return;
    }
    if (i < call.period) {
        const Values v = values_of(call, call.live, i);
        for (i64 at = i; at < call.N; at += call.period) backward_neurons(call, v, at, gp);
    }
#pragma unroll
    for (int j = 0; j < LEARNED; ++j) {
        R sum = R(0);
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) sum += gp[w][j];
        if (!(SUMMED_BY_NEURON >> j & 1)) {
            sum = block_sum(sum);
            if (threadIdx.x == 0) call.gp[j][blockIdx.x] = sum;
        } else if (i < call.period) {
            write(call.gp, i, gp, j);
        }
    }
}

// One block for each learned parameter and channel adds up what `backward` left.
extern "C" __global__ void sum(const htaf_snn::Sum call) {
    using namespace htaf_snn;
    const i64 channel = blockIdx.x % call.channels;
    const int j = (int)(blockIdx.x / call.channels);
    const bool by_neuron = SUMMED_BY_NEURON >> j & 1;
    if (channel && !by_neuron) return;
    const i64 count = by_neuron ? call.sums / call.channels : call.block_sums;
    double sum = 0;
    for (i64 e = threadIdx.x; e < count; e += blockDim.x) {
        const i64 at = e / call.inner * call.inner * call.channels + channel * call.inner + e % call.inner;
        sum += (double)call.table[j][by_neuron ? at : e];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) call.grad[j][channel] = R(sum);
}
