// Loops over neurons on the CPU: chunks that stay in cache, time outside, a vector loop inside.
// Included after kernel.h and struct Function, with X (input and spikes) and R (state) defined.

#define NOINLINE static __attribute__((noinline))

namespace htaf_snn {

typedef long long i64;

const int K = Function::parameters > 0 ? Function::parameters : 1;
const i64 MAX_SLABS = 64;  // parts of a layer; gradients of parameters are summed part by part

// The parameters of neuron i of a chunk; without LEARN one value each serves the whole layer.
template <bool LEARN> struct Parameters {
    const R* table;
    i64 width, i;
    HTAF_METHOD R operator[](int k) const { return LEARN ? table[k * width + i] : table[k]; }
};

// Every row of a chunk starts a new stream of memory, whose first lines no hardware foresees:
// while a block of one row is worked on, the same block of the next row is fetched.
const i64 BLOCK = 256;

template <class A> HTAF_METHOD void fetch_to_read(const A* p, i64 len) {
    for (i64 i = 0; i < len; i += 64 / sizeof(A)) __builtin_prefetch(p + i, 0);
}
template <class A> HTAF_METHOD void fetch_to_write(A* p, i64 len) {
    for (i64 i = 0; i < len; i += 64 / sizeof(A)) __builtin_prefetch(p + i, 1);
}

template <class Work> HTAF_METHOD void in_blocks(i64 len, const Work& work) {
    for (i64 b = 0; b < len; b += BLOCK) work(b, len - b < BLOCK ? len - b : BLOCK);
}

// Small functions of restrict arguments: inside the OpenMP region they would not vectorise.

template <int mode, bool LEARN>
NOINLINE void forward_step(Neuron<R> n, const R* __restrict table, i64 width,
                           const X* __restrict x, R* __restrict v, X* __restrict spike, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) {
        Parameters<LEARN> p = {table, width, i};
        R h = charge(n, R(load(x + i)), v[i]);
        R s = fire<Function, mode>(h - n.v_threshold, p);
        v[i] = reset(n, h, s);
        store(spike + i, s);
    }
}

// One step forward again, keeping ds/dh and dv/dh, and h and v[t-1] where parameters learn.
template <int mode, bool LEARN>
NOINLINE void record_step(Neuron<R> n, const R* __restrict table, i64 width,
                          const X* __restrict x, R* __restrict v, R* __restrict ds,
                          R* __restrict dv, R* __restrict kept_h, R* __restrict kept_v, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) {
        Parameters<LEARN> p = {table, width, i};
        R h = charge(n, R(load(x + i)), v[i]);
        R z = h - n.v_threshold;
        R s = fire<Function, mode>(z, p);
        R d = mode == STEP ? R(0) : Function::derivative(z, p);
        R kick = n.pull * h + n.push;
        if (LEARN) {
            kept_h[i] = h;
            kept_v[i] = v[i];
        }
        ds[i] = d;
        dv[i] = R(1) - s * n.pull - n.pass * kick * d;
        v[i] = h - s * kick;
    }
}

template <int mode, bool LEARN>
NOINLINE void backward_step(Neuron<R> n, const R* __restrict table, i64 width,
                            const X* __restrict x, const X* __restrict grad_spike,
                            const R* __restrict ds, const R* __restrict dv,
                            const R* __restrict kept_h, const R* __restrict kept_v,
                            R* __restrict grad_v, X* __restrict grad_x, R* __restrict grad_table,
                            R* __restrict grad_r, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) {
        R gs = R(load(grad_spike + i)), gv = grad_v[i];
        R gh = gs * ds[i] + gv * dv[i];
        if (LEARN) {
            Parameters<LEARN> p = {table, width, i};
            if (mode != STEP && Function::learnable) {
                R total = gs - n.pass * gv * (n.pull * kept_h[i] + n.push);
                for (int k = 0; k < Function::parameters; ++k)
                    grad_table[k * width + i] +=
                        total * Function::parameter_derivative(k, kept_h[i] - n.v_threshold, p);
            }
            grad_r[i] += gh * (n.drive * R(load(x + i)) - (kept_v[i] - n.v_rest));
        }
        store(grad_x + i, n.gain * gh);
        grad_v[i] = n.keep * gh;
    }
}

NOINLINE void add(R* __restrict to, const R* __restrict from, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) to[i] += from[i];
}

struct Layer {
    i64 T, N;               // time steps, neurons
    i64 channels, inner;    // neuron i has the parameters of channel (i / inner) % channels
    const R* parameters[8]; // one value, or one a channel
    i64 counts[8];          // how many values: 1 or `channels`
    i64 threads;
    i64 learned;            // parameters whose gradient is asked for: none or all
};

// A thread's scratch memory, kept: to give it back after every call costs more than the loops.
R* scratch(i64 count) {
    static thread_local R* memory = 0;
    static thread_local i64 capacity = 0;
    if (count > capacity) {
        free(memory);
        memory = (R*)malloc(sizeof(R) * count);
        capacity = count;
    }
    return memory;
}

template <bool LEARN>
void fill_table(const Layer& layer, R* table, i64 width, i64 first, i64 len) {
    for (int k = 0; k < Function::parameters; ++k) {
        if (!LEARN) {
            table[k] = layer.parameters[k][0];
            continue;
        }
        for (i64 i = 0; i < len; ++i) {
            i64 channel = layer.counts[k] == 1 ? 0 : ((first + i) / layer.inner) % layer.channels;
            table[k * width + i] = layer.parameters[k][channel];
        }
    }
}

// Neurons a chunk, so that `arrays` arrays of T steps stay in the second-level cache.
i64 chunk_width(i64 T, i64 arrays) {
    i64 width = 24576 / (arrays * (T > 0 ? T : 1)) / 64 * 64;
    return width < 64 ? 64 : width > 2048 ? 2048 : width;
}

template <int mode, bool LEARN>
void forward_slab(const Layer& layer, const Neuron<R>& n, const X* x, const R* v0, X* spike,
                  R* v_last, R* v_seq, i64 begin, i64 end) {
    const i64 width = chunk_width(1, 16);
    R* table = scratch(K * width);
    for (i64 first = begin; first < end; first += width) {
        i64 len = end - first < width ? end - first : width;
        fill_table<LEARN>(layer, table, width, first, len);
        R* v = v_last + first;
        memcpy(v, v0 + first, sizeof(R) * len);
        for (i64 t = 0; t < layer.T; ++t) {
            i64 at = t * layer.N + first;
            i64 next = t + 1 < layer.T ? at + layer.N : first + len;
            in_blocks(len, [&](i64 b, i64 count) {
                fetch_to_read(x + next + b, count);
                fetch_to_write(spike + next + b, count);
                forward_step<mode, LEARN>(n, table + (LEARN ? b : 0), width, x + at + b, v + b,
                                          spike + at + b, count);
            });
            if (v_seq) memcpy(v_seq + at, v, sizeof(R) * len);
        }
    }
}

template <int mode, bool LEARN>
void backward_slab(const Layer& layer, const Neuron<R>& n, const X* x, const R* v0,
                   const X* grad_spike, const R* grad_v_last, const R* grad_v_seq, X* grad_x,
                   R* grad_v0, double* grad_parameters, double* grad_r, i64 begin, i64 end) {
    const i64 T = layer.T, kept = LEARN ? 4 : 2, width = chunk_width(T, kept);
    R* memory = scratch(width * (kept * T + 2 * K + 2));
    R *ds = memory, *dv = ds + T * width, *h = dv + T * width, *u = LEARN ? h + T * width : h;
    R *table = memory + kept * T * width, *grad_table = table + K * width;
    R *chunk_r = grad_table + K * width, *v = chunk_r + width;
    for (i64 first = begin; first < end; first += width) {
        i64 len = end - first < width ? end - first : width;
        fill_table<LEARN>(layer, table, width, first, len);
        memcpy(v, v0 + first, sizeof(R) * len);
        for (i64 t = 0; t < T; ++t) {
            i64 at = t * layer.N + first, row = t * width, kept_row = LEARN ? row : 0;
            in_blocks(len, [&](i64 b, i64 count) {
                if (t + 1 < T) {
                    fetch_to_read(x + at + layer.N + b, count);
                } else {
                    fetch_to_read(grad_spike + at + b, count);
                    fetch_to_write(grad_x + at + b, count);
                }
                record_step<mode, LEARN>(n, table + (LEARN ? b : 0), width, x + at + b, v + b,
                                         ds + row + b, dv + row + b, h + kept_row + b,
                                         u + kept_row + b, count);
            });
        }
        if (LEARN) memset(grad_table, 0, sizeof(R) * width * (K + 1));  // and chunk_r
        R* grad_v = grad_v0 + first;
        if (grad_v_last)
            memcpy(grad_v, grad_v_last + first, sizeof(R) * len);
        else
            memset(grad_v, 0, sizeof(R) * len);
        for (i64 t = T - 1; t >= 0; --t) {
            i64 at = t * layer.N + first, row = t * width, kept_row = LEARN ? row : 0;
            if (grad_v_seq) add(grad_v, grad_v_seq + at, len);
            in_blocks(len, [&](i64 b, i64 count) {
                if (t) {
                    fetch_to_read(grad_spike + at - layer.N + b, count);
                    fetch_to_write(grad_x + at - layer.N + b, count);
                } else {
                    fetch_to_read(x + first + len + b, count);
                }
                backward_step<mode, LEARN>(n, table + (LEARN ? b : 0), width, x + at + b,
                                           grad_spike + at + b, ds + row + b, dv + row + b,
                                           h + kept_row + b, u + kept_row + b, grad_v + b,
                                           grad_x + at + b, grad_table + b, chunk_r + b, count);
            });
        }
        if (!LEARN) continue;
        for (i64 i = 0; i < len; ++i) {
            *grad_r += (double)chunk_r[i];
            i64 channel = ((first + i) / layer.inner) % layer.channels;
            for (int k = 0; k < layer.learned; ++k)
                grad_parameters[k * layer.channels + channel] += (double)grad_table[k * width + i];
        }
    }
}

// Calls work(slab, begin, end) for each part of the layer, in parallel where that pays.
template <class Work> void for_slabs(const Layer& layer, i64 slabs, const Work& work) {
    i64 size = (layer.N + slabs - 1) / slabs;
    size = (size + 63) / 64 * 64;
#pragma omp parallel for schedule(static) num_threads(layer.threads) \
    if (layer.threads > 1 && slabs > 1)
    for (i64 slab = 0; slab < slabs; ++slab) {
        i64 begin = slab * size, end = begin + size < layer.N ? begin + size : layer.N;
        if (begin < end) work(slab, begin, end);
    }
}

i64 slab_count(const Layer& layer) {
    i64 slabs = layer.N * layer.T / 16384 + 1;
    return slabs < MAX_SLABS ? slabs : MAX_SLABS;
}

template <int mode, bool LEARN>
void forward_layer(const Layer& layer, const Neuron<R>& n, const X* x, const R* v0, X* spike,
                   R* v_last, R* v_seq) {
    for_slabs(layer, slab_count(layer), [&](i64, i64 begin, i64 end) {
        forward_slab<mode, LEARN>(layer, n, x, v0, spike, v_last, v_seq, begin, end);
    });
}

template <int mode, bool LEARN>
void backward_layer(const Layer& layer, const Neuron<R>& n, const X* x, const R* v0,
                    const X* grad_spike, const R* grad_v_last, const R* grad_v_seq, X* grad_x,
                    R* grad_v0, double* grad_parameters, double* grad_r) {
    const i64 slabs = slab_count(layer), size = K * layer.channels + 1;
    double* parts = LEARN ? (double*)calloc(slabs * size, sizeof(double)) : 0;
    for_slabs(layer, slabs, [&](i64 slab, i64 begin, i64 end) {
        double* part = LEARN ? parts + slab * size : 0;
        backward_slab<mode, LEARN>(layer, n, x, v0, grad_spike, grad_v_last, grad_v_seq, grad_x,
                                   grad_v0, part, part + size - 1, begin, end);
    });
    if (!LEARN) return;
    for (i64 slab = 0; slab < slabs; ++slab) {  // in this order whatever the number of threads
        const double* part = parts + slab * size;
        for (i64 i = 0; i < layer.learned * layer.channels; ++i)
            grad_parameters[i] += part[i];
        *grad_r += part[size - 1];
    }
    free(parts);
}

}  // namespace htaf_snn

using namespace htaf_snn;

#define DISPATCH(f, ...)                                                      \
    switch (mode * 2 + (learn ? 1 : 0)) {                                     \
        case 0: f<SOFT, false>(__VA_ARGS__); break;                           \
        case 1: f<SOFT, true>(__VA_ARGS__); break;                            \
        case 2: f<HARD, false>(__VA_ARGS__); break;                           \
        case 3: f<HARD, true>(__VA_ARGS__); break;                            \
        case 4: f<STEP, false>(__VA_ARGS__); break;                           \
        case 5: f<STEP, true>(__VA_ARGS__); break;                            \
    }

extern "C" void forward(const Layer* layer, const Neuron<R>* neuron, int mode, int learn,
                        const X* x, const R* v0, X* spike, R* v_last, R* v_seq) {
    DISPATCH(forward_layer, *layer, *neuron, x, v0, spike, v_last, v_seq)
}

extern "C" void backward(const Layer* layer, const Neuron<R>* neuron, int mode, int learn,
                         const X* x, const R* v0, const X* grad_spike, const R* grad_v_last,
                         const R* grad_v_seq, X* grad_x, R* grad_v0, double* grad_parameters,
                         double* grad_r) {
    DISPATCH(backward_layer, *layer, *neuron, x, v0, grad_spike, grad_v_last, grad_v_seq, grad_x,
             grad_v0, grad_parameters, grad_r)
}
