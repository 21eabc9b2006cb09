// Loops over neurons on the CPU: chunks that stay in cache, time outside, a vector loop inside.
// Included after kernel.h and struct Function.

#define NOINLINE static __attribute__((noinline))

namespace htaf_snn {

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
NOINLINE void forward_step(Neuron n, const R* __restrict table, i64 width,
                           const X* __restrict x, R* __restrict v, X* __restrict spike, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) {
        Parameters<LEARN> p = {table, width, i};
        R h = charge(n, R(load(x + i)), v[i]);
        R s = fire<Function, mode>(n, h - n.v_threshold, p);
        v[i] = reset(n, h, s);
        store(spike + i, s);
    }
}

// One step forward again, keeping ds/dh and dv/dh, and h and v[t-1] where parameters learn.
template <int mode, bool LEARN>
NOINLINE void record_step(Neuron n, const R* __restrict table, i64 width,
                          const X* __restrict x, R* __restrict v, R* __restrict ds,
                          R* __restrict dv, R* __restrict kept_h, R* __restrict kept_v, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) {
        Parameters<LEARN> p = {table, width, i};
        R h = charge(n, R(load(x + i)), v[i]);
        R z = h - n.v_threshold;
        R s = fire<Function, mode>(n, z, p);
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
NOINLINE void backward_step(Neuron n, const R* __restrict table, i64 width,
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
            table[k] = layer.parameters[k * layer.channels];
            continue;
        }
        for (i64 i = 0; i < len; ++i) {
            i64 channel = ((first + i) / layer.inner) % layer.channels;
            table[k * width + i] = layer.parameters[k * layer.channels + channel];
        }
    }
}

// Neurons a chunk, so that `arrays` arrays of T steps stay in the second-level cache.
i64 chunk_width(i64 T, i64 arrays) {
    i64 width = 24576 / (arrays * (T > 0 ? T : 1)) / 64 * 64;
    return width < 64 ? 64 : width > 2048 ? 2048 : width;
}

struct Forward {
    X* spike;
    R* v_last;
    R* v_seq;  // null if not kept
};

template <int mode, bool LEARN>
void forward_slab(const Layer& layer, i64 T, const Forward& out, i64 begin, i64 end) {
    const Neuron n = neuron(layer);
    const i64 width = chunk_width(1, 16);
    R* table = scratch(K * width);
    for (i64 first = begin; first < end; first += width) {
        i64 len = end - first < width ? end - first : width;
        fill_table<LEARN>(layer, table, width, first, len);
        R* v = out.v_last + first;
        memcpy(v, layer.v0 + first, sizeof(R) * len);
        for (i64 t = 0; t < T; ++t) {
            i64 at = t * layer.N + first, next = t + 1 < T ? at + layer.N : first + len;
            in_blocks(len, [&](i64 b, i64 count) {
                fetch_to_read(layer.x + next + b, count);
                fetch_to_write(out.spike + next + b, count);
                forward_step<mode, LEARN>(n, table + (LEARN ? b : 0), width, layer.x + at + b,
                                          v + b, out.spike + at + b, count);
            });
            if (out.v_seq) memcpy(out.v_seq + at, v, sizeof(R) * len);
        }
    }
}

struct Backward {
    const X* grad_spike;
    const R *grad_v_last, *grad_v_seq;  // null if zero
    X* grad_x;
    R* grad_v0;
    double *grad_parameters, *grad_r;  // [Function::parameters, channels] and one; null unasked
};

template <int mode, bool LEARN>
void backward_slab(const Layer& layer, i64 T, const Backward& out, i64 begin, i64 end) {
    const Neuron n = neuron(layer);
    const i64 kept = LEARN ? 4 : 2, width = chunk_width(T, kept);
    R* memory = scratch(width * (kept * T + 2 * K + 2));
    R *ds = memory, *dv = ds + T * width, *h = dv + T * width, *u = LEARN ? h + T * width : h;
    R *table = memory + kept * T * width, *grad_table = table + K * width;
    R *chunk_r = grad_table + K * width, *v = chunk_r + width;
    for (i64 first = begin; first < end; first += width) {
        i64 len = end - first < width ? end - first : width;
        fill_table<LEARN>(layer, table, width, first, len);
        memcpy(v, layer.v0 + first, sizeof(R) * len);
        for (i64 t = 0; t < T; ++t) {
            i64 at = t * layer.N + first, row = t * width, kept_row = LEARN ? row : 0;
            in_blocks(len, [&](i64 b, i64 count) {
                if (t + 1 < T) {
                    fetch_to_read(layer.x + at + layer.N + b, count);
                } else {
                    fetch_to_read(out.grad_spike + at + b, count);
                    fetch_to_write(out.grad_x + at + b, count);
                }
                record_step<mode, LEARN>(n, table + (LEARN ? b : 0), width, layer.x + at + b, v + b,
                                         ds + row + b, dv + row + b, h + kept_row + b,
                                         u + kept_row + b, count);
            });
        }
        if (LEARN) memset(grad_table, 0, sizeof(R) * width * (K + 1));  // and chunk_r
        R* grad_v = out.grad_v0 + first;
        if (out.grad_v_last)
            memcpy(grad_v, out.grad_v_last + first, sizeof(R) * len);
        else
            memset(grad_v, 0, sizeof(R) * len);
        for (i64 t = T - 1; t >= 0; --t) {
            i64 at = t * layer.N + first, row = t * width, kept_row = LEARN ? row : 0;
            if (out.grad_v_seq) add(grad_v, out.grad_v_seq + at, len);
            in_blocks(len, [&](i64 b, i64 count) {
                if (t) {
                    fetch_to_read(out.grad_spike + at - layer.N + b, count);
                    fetch_to_write(out.grad_x + at - layer.N + b, count);
                } else {
                    fetch_to_read(layer.x + first + len + b, count);
                }
                backward_step<mode, LEARN>(n, table + (LEARN ? b : 0), width, layer.x + at + b,
                                           out.grad_spike + at + b, ds + row + b, dv + row + b,
                                           h + kept_row + b, u + kept_row + b, grad_v + b,
                                           out.grad_x + at + b, grad_table + b, chunk_r + b, count);
            });
        }
        if (out.grad_r)
            for (i64 i = 0; i < len; ++i) *out.grad_r += (double)chunk_r[i];
        if (out.grad_parameters)
            for (i64 i = 0; i < len; ++i) {
                i64 channel = ((first + i) / layer.inner) % layer.channels;
                for (int k = 0; k < Function::parameters; ++k)
                    out.grad_parameters[k * layer.channels + channel] +=
                        (double)grad_table[k * width + i];
            }
    }
}

i64 slab_count(const Layer& layer, i64 T) {
    i64 slabs = layer.N * T / 16384 + 1;
    return slabs < MAX_SLABS ? slabs : MAX_SLABS;
}

// Calls work(slab, begin, end) for each part of the layer, in parallel where that pays.
template <class Work>
void for_slabs(const Layer& layer, i64 slabs, i64 threads, const Work& work) {
    i64 size = (layer.N + slabs - 1) / slabs;
    size = (size + 63) / 64 * 64;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && slabs > 1)
    for (i64 slab = 0; slab < slabs; ++slab) {
        i64 begin = slab * size, end = begin + size < layer.N ? begin + size : layer.N;
        if (begin < end) work(slab, begin, end);
    }
}

template <int mode, bool LEARN>
void forward_layer(const Layer& layer, i64 T, i64 threads, const Forward& out) {
    for_slabs(layer, slab_count(layer, T), threads, [&](i64, i64 begin, i64 end) {
        forward_slab<mode, LEARN>(layer, T, out, begin, end);
    });
}

template <int mode, bool LEARN>
void backward_layer(const Layer& layer, i64 T, i64 threads, const Backward& out) {
    const i64 slabs = slab_count(layer, T), count = Function::parameters * layer.channels;
    double* sums = LEARN ? (double*)calloc(slabs * (count + 1), sizeof(double)) : 0;
    for_slabs(layer, slabs, threads, [&](i64 slab, i64 begin, i64 end) {
        double* own = sums + slab * (count + 1);
        Backward part = out;
        if (out.grad_parameters) part.grad_parameters = own;
        if (out.grad_r) part.grad_r = own + count;
        backward_slab<mode, LEARN>(layer, T, part, begin, end);
    });
    for (i64 slab = 0; LEARN && slab < slabs; ++slab) {  // in this order on any number of threads
        const double* own = sums + slab * (count + 1);
        for (i64 i = 0; out.grad_parameters && i < count; ++i) out.grad_parameters[i] += own[i];
        if (out.grad_r) *out.grad_r += own[count];
    }
    free(sums);
}

}  // namespace htaf_snn

using namespace htaf_snn;

#define DISPATCH(f, ...)                                                      \
    switch (mode * 2 + learn) {                                               \
        case 0: f<SOFT, false>(__VA_ARGS__); break;                           \
        case 1: f<SOFT, true>(__VA_ARGS__); break;                            \
        case 2: f<HARD, false>(__VA_ARGS__); break;                           \
        case 3: f<HARD, true>(__VA_ARGS__); break;                            \
        case 4: f<STEP, false>(__VA_ARGS__); break;                           \
        case 5: f<STEP, true>(__VA_ARGS__); break;                            \
    }

extern "C" void forward(int mode, i64 T, i64 threads, LAYER_FIELDS, X* spike, R* v_last,
                        R* v_seq) {
    const Layer layer = LAYER;
    const Forward out = {spike, v_last, v_seq};
    const int learn = channels > 1;
    DISPATCH(forward_layer, layer, T, threads, out)
}

extern "C" void backward(int mode, i64 T, i64 threads, LAYER_FIELDS, const X* grad_spike,
                         const R* grad_v_last, const R* grad_v_seq, X* grad_x, R* grad_v0,
                         double* grad_parameters, double* grad_r) {
    const Layer layer = LAYER;
    const Backward out = {grad_spike, grad_v_last, grad_v_seq, grad_x, grad_v0, grad_parameters,
                          grad_r};
    const int learn = channels > 1 || grad_parameters || grad_r;
    DISPATCH(backward_layer, layer, T, threads, out)
}
