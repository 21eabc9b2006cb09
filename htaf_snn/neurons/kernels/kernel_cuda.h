// One thread for WIDTH neurons next to each other on CUDA, and STEPS steps, in registers. All loads
// come first: a compiler moves none over a store, and a thread would wait for memory at each step.
// Included after kernel.h, hardware.h and a traced step's forward_step, record_step and
// backward_step, with STEPS, WIDTH, WRITES_OUTPUTS and SEQUENCES defined.

#define IN_SEQUENCES(j) (SEQUENCES >> (j) & 1)

namespace htaf_snn {

struct Values {
    R u[AT_LEAST_ONE(LAYER_VALUES)], c[WIDTH][AT_LEAST_ONE(NEURON_VALUES)];
};

HTAF_FN Values values_of(const Call& call, const Number* live, i64 i) {
    Values found;
    double n[AT_LEAST_ONE(NUMBERS)];
    EACH(k, NUMBERS) {
        const R* at = k < NUMBERS - UNIFORM ? nullptr : call.number_at[k - (NUMBERS - UNIFORM)];
        n[k] = at ? *at : live ? R(live[k]) : R(call.numbers[k]);
    }
    layer_values(n, found.u);
    EACH(w, WIDTH) {
        R p[AT_LEAST_ONE(PARAMETERS)];
        const i64 channel = PARAMETERS ? channel_of(call, i + w) : 0;
        EACH(k, PARAMETERS) p[k] = call.parameters[k][channel];
        neuron_values(found.u, p, found.c[w]);
    }
    return found;
}

// Of neurons i to i + WIDTH: what is at from[j], or is `absent`.
template <class A> HTAF_FN void read_states(
    const R* const* from, A absent, i64 i, R (*s)[AT_LEAST_ONE(STATES)]
) {
    EACH(j, STATES) {
        Pack<R> found;
        if (from[j]) found = read(from[j] + i);
        EACH(w, WIDTH) s[w][j] = from[j] ? found.of[w] : absent(j);
    }
}

template <class V, int MANY> HTAF_FN void write(V* to, const R (*values)[MANY], int j) {
    Pack<V> made;
    EACH(w, WIDTH) round_to(values[w][j], made.of[w]);
    *(Pack<V>*)to = made;
}

HTAF_FN void forward_neurons(const GridForward& call, i64 i) {
    Pack<X> in[STEPS][AT_LEAST_ONE(INPUTS)];
    EACH(t, STEPS) EACH(j, INPUTS) in[t][j] = read(call.x[j] + t * call.N + i);
    R s[WIDTH][AT_LEAST_ONE(STATES)], o[WIDTH][AT_LEAST_ONE(OUTPUTS)], x[AT_LEAST_ONE(INPUTS)];
    read_states(call.s0, [&](int j) { return R(call.rest[j]); }, i, s);
    const Values v = values_of(call, call.live, i);
    EACH(t, STEPS) {
        EACH(w, WIDTH) {
            EACH(j, INPUTS) x[j] = number(in[t][j].of[w]);
            forward_step(v.u, v.c[w], x, s[w], o[w]);
        }
        const i64 at = t * call.N + i;
        EACH(j, OUTPUTS * WRITES_OUTPUTS) write(call.o[j] + at, o, j);
        EACH(j, STATES) if (IN_SEQUENCES(j)) write(call.s_seq[j] + at, s, j);
    }
    EACH(j, STATES) write(call.last[j] + i, s, j);
}

HTAF_FN void backward_neurons(
    const Backward& call, const Values& v, i64 i, R (*gp)[AT_LEAST_ONE(LEARNED)]
) {
    Pack<X> in[STEPS][AT_LEAST_ONE(INPUTS)], grad[STEPS][AT_LEAST_ONE(OUTPUTS)];
    Pack<R> grad_s[STEPS][AT_LEAST_ONE(STATES)];
    EACH(t, STEPS) EACH(j, INPUTS) in[t][j] = read(call.x[j] + t * call.N + i);
    EACH(back, STEPS) {
        const int t = STEPS - 1 - back;
        EACH(j, OUTPUTS) grad[t][j] = read(call.go[j] + t * call.N + i);
        EACH(j, STATES) if (IN_SEQUENCES(j)) grad_s[t][j] = read(call.gs_seq[j] + t * call.N + i);
    }
    R s[WIDTH][AT_LEAST_ONE(STATES)], gs[WIDTH][AT_LEAST_ONE(STATES)];
    R k[WIDTH][STEPS][AT_LEAST_ONE(KEPT)], gx[WIDTH][AT_LEAST_ONE(INPUTS)];
    R x[AT_LEAST_ONE(INPUTS)], go[AT_LEAST_ONE(OUTPUTS)];
    read_states(call.s0, [&](int j) { return R(call.rest[j]); }, i, s);
    read_states(call.g_last, [](int) { return R(0); }, i, gs);
    EACH(t, STEPS) EACH(w, WIDTH) {
        EACH(j, INPUTS) x[j] = number(in[t][j].of[w]);
        record_step(v.u, v.c[w], x, s[w], k[w][t]);
    }
    EACH(back, STEPS) {
        const int t = STEPS - 1 - back;
        EACH(w, WIDTH) {
            EACH(j, INPUTS) x[j] = number(in[t][j].of[w]);
            EACH(j, OUTPUTS) go[j] = number(grad[t][j].of[w]);
            EACH(j, STATES) if (IN_SEQUENCES(j)) gs[w][j] += grad_s[t][j].of[w];
            backward_step(v.u, v.c[w], x, k[w][t], go, gs[w], gx[w], gp[w]);
        }
        EACH(j, INPUTS) write(call.gx[j] + t * call.N + i, gx, j);
    }
    EACH(j, STATES) if (call.gs0[j]) write(call.gs0[j] + i, gs, j);
}

}  // namespace htaf_snn

extern "C" __global__ void forward(const htaf_snn::GridForward call) {
    const htaf_snn::i64 i = htaf_snn::thread_number() * WIDTH;
    if (i < call.N) htaf_snn::forward_neurons(call, i);
}

// Where parameters are learned, a thread has all neurons `call.period` from each other, which are of
// one channel, and leaves the sum of their gradients: by thread, or by block where all channels
// share a parameter.
extern "C" __global__ void backward(const htaf_snn::GridBackward call) {
    using namespace htaf_snn;
    const i64 i = thread_number() * WIDTH, end = LEARNED ? call.period : call.N;
    R gp[WIDTH][AT_LEAST_ONE(LEARNED)] = {};
    if (i < end) {
        const Values v = values_of(call, call.live, i);
        i64 at = i;
        do backward_neurons(call, v, at, gp);
        while (LEARNED && (at += end) < call.N);
    }
    EACH(j, LEARNED) {
        if (SUMMED_BY_NEURON >> j & 1) {
            if (i < end) write(call.gp[j] + i, gp, j);
            continue;
        }
        R sum = R(0);
        EACH(w, WIDTH) sum += gp[w][j];
        sum = block_sum(sum);
        if (threadIdx.x == 0) call.gp[j][blockIdx.x] = sum;
    }
}

// One block for each learned parameter and channel adds up what `backward` left.
extern "C" __global__ void sum(const htaf_snn::Sum call) {
    using namespace htaf_snn;
    const i64 channel = blockIdx.x % call.channels, j = blockIdx.x / call.channels;
    const bool by_neuron = SUMMED_BY_NEURON >> j & 1;
    if (channel && !by_neuron) return;
    const i64 count = by_neuron ? call.sums / call.channels : call.block_sums;
    double sum = 0;
    for (i64 e = threadIdx.x; e < count; e += blockDim.x) {
        const i64 row = e / call.inner * call.channels + channel;
        sum += (double)call.table[j][by_neuron ? row * call.inner + e % call.inner : e];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) call.grad[j][channel] = R(sum);
}
