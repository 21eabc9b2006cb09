// Loops over neurons on the CPU: chunks that stay in cache, time outside, a vector loop inside.
// Included after kernel.h and a traced step's forward_row, record_row and backward_row.

namespace htaf_snn {

const i64 MAX_SLABS = 64;  // parts of a layer; gradients of parameters are summed part by part

// Every row of a chunk starts a new stream of memory, whose first lines no hardware foresees:
// while a block of one row is worked on, the same block of the next row is fetched.
template <class A> HTAF_METHOD void fetch_to_read(const A* p, i64 len) {
    for (i64 i = 0; i < len; i += 64 / sizeof(A)) __builtin_prefetch(p + i, 0);
}
template <class A> HTAF_METHOD void fetch_to_write(A* p, i64 len) {
    for (i64 i = 0; i < len; i += 64 / sizeof(A)) __builtin_prefetch(p + i, 1);
}

template <class Work> HTAF_METHOD void in_blocks(i64 len, const Work& work) {
    for (i64 b = 0; b < len; b += BLOCK) work(b, len - b < BLOCK ? len - b : BLOCK);
}

template <class A> NOINLINE void add(A* __restrict to, const R* __restrict from, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) to[i] += from[i];
}

NOINLINE double total(const R* from, i64 len) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 i = 0; i < len; ++i) sum += (double)from[i];
    return sum;
}

double* zeros(i64 count) {
    double* made = (double*)calloc(count > 0 ? count : 1, sizeof(double));
    if (!made) abort();  // no memory
    return made;
}

// A thread's scratch memory, kept: to give it back after every call costs more than the loops.
R* scratch(i64 count) {
    static thread_local R* memory = 0;
    static thread_local i64 capacity = 0;
    if (count > capacity) {
        free(memory);
        void* made = 0;
        if (posix_memalign(&made, 64, sizeof(R) * count)) abort();  // no memory
        memory = (R*)made;
        capacity = count;
    }
    return memory;
}

// The state at the start, of neurons from `first` on.
inline void begin_state(R* __restrict s, const Call& call, int j, i64 first, i64 len) {
    if (call.s0[j]) {
        memcpy(s, call.s0[j] + first, sizeof(R) * len);
        return;
    }
    const R rest = (R)call.rest[j];
    for (i64 i = 0; i < len; ++i) s[i] = rest;
}

// The values of a chunk's neurons that time does not change, from their parameters.
struct NeuronValues {
    R* c;  // [NEURON_VALUES, width]
    i64 width, phase, filled;

    void fill(const Call& call, const R* u, i64 first, i64 len) {
        if (!NEURON_VALUES) return;
        i64 channel = first / call.inner % call.channels, within = first % call.inner;
        i64 now = channel * call.inner + within;
        if (now == phase && len <= filled) return;  // the same neurons as in the last chunk
        phase = now;
        filled = len;
        // Where channels lie side by side, they come again.
        const i64 first_ones = call.inner == 1 && call.channels < len ? call.channels : len;
        for (i64 i = 0; i < first_ones;) {
            const i64 run = call.inner - within < len - i ? call.inner - within : len - i;
            R mine[AT_LEAST_ONE(PARAMETERS)], made[AT_LEAST_ONE(NEURON_VALUES)];
            for (int k = 0; k < PARAMETERS; ++k)
                mine[k] = call.parameters[k][channel];
            neuron_values(u, mine, made);
            for (int k = 0; k < NEURON_VALUES; ++k)
                for (i64 j = i; j < i + run; ++j) c[k * width + j] = made[k];
            i += run;
            within = 0;
            if (++channel == call.channels) channel = 0;
        }
        for (int k = 0; k < NEURON_VALUES; ++k)
            for (i64 i = first_ones; i < len; ++i)
                c[k * width + i] = c[k * width + i - first_ones];
    }
};

// Neurons a chunk, so that `arrays` arrays of T steps stay in the second-level cache, or where they
// are few in the first; where channels lie side by side, as many as make the next chunk begin with
// the same channel.
i64 chunk_width(const Call& call, i64 arrays, i64 T) {
    const i64 rows = (arrays > 0 ? arrays : 1) * (T > 0 ? T : 1), most = rows <= 16 ? 512 : 2048;
    i64 width = 24576 / rows / 64 * 64;
    width = width < 64 ? 64 : width > most ? most : width;
    if (NEURON_VALUES && call.inner == 1 && call.channels <= 2048)
        width = (width > call.channels ? width : call.channels) / call.channels * call.channels;
    return width;
}

void forward_slab(const Forward& call, i64 begin, i64 end) {
    const i64 width = chunk_width(call, 17 + NEURON_VALUES, 1);
    R u[AT_LEAST_ONE(LAYER_VALUES)];
    values_of_layer(call, u);
    NeuronValues values = {scratch(width * NEURON_VALUES), width, -1, 0};
    for (i64 first = begin; first < end; first += width) {
        const i64 len = end - first < width ? end - first : width;
        values.fill(call, u, first, len);
        for (int j = 0; j < STATES; ++j)
            begin_state(call.last[j] + first, call, j, first, len);
        for (i64 t = 0; t < call.T; ++t) {
            const i64 at = t * call.N + first;
            const i64 next = t + 1 < call.T ? at + call.N : first + len;
            Row row;
            for (int j = 0; j < INPUTS; ++j) row.x[j] = call.x[j] + at;
            for (int j = 0; j < OUTPUTS; ++j) row.o[j] = call.o[j] + at;
            for (int j = 0; j < STATES; ++j) row.s[j] = call.last[j] + first;
            for (int j = 0; j < NEURON_VALUES; ++j) row.c[j] = values.c + j * width;
            in_blocks(len, [&](i64 b, i64 count) {
                for (int j = 0; j < INPUTS; ++j) fetch_to_read(call.x[j] + next + b, count);
                for (int j = 0; j < OUTPUTS; ++j) fetch_to_write(call.o[j] + next + b, count);
                forward_row(u, row, b, count);
            });
            for (int j = 0; j < STATES; ++j)
                if (call.s_seq[j]) memcpy(call.s_seq[j] + at, call.last[j] + first, sizeof(R) * len);
        }
    }
}

void backward_slab(const Backward& call, double* sums, i64 begin, i64 end) {
    const i64 T = call.T, width = chunk_width(call, KEPT, T);
    R u[AT_LEAST_ONE(LAYER_VALUES)];
    values_of_layer(call, u);
    const i64 row_length = width + 16;  // rows a power of two apart would share the cache's sets
    R* memory = scratch(row_length * (KEPT * T + 2 * STATES + LEARNED + NEURON_VALUES));
    R *kept = memory, *s = kept + KEPT * T * row_length, *own_gs = s + STATES * row_length;
    R* gp = own_gs + STATES * row_length;
    NeuronValues values = {gp + LEARNED * row_length, row_length, -1, 0};
    for (i64 first = begin; first < end; first += width) {
        const i64 len = end - first < width ? end - first : width;
        values.fill(call, u, first, len);
        R* gs[AT_LEAST_ONE(STATES)];
        for (int j = 0; j < STATES; ++j) {
            begin_state(s + j * row_length, call, j, first, len);
            gs[j] = call.gs0[j] ? call.gs0[j] + first : own_gs + j * row_length;
            if (call.g_last[j])
                memcpy(gs[j], call.g_last[j] + first, sizeof(R) * len);
            else
                memset(gs[j], 0, sizeof(R) * len);
        }
        memset(gp, 0, sizeof(R) * row_length * LEARNED);
        auto row_at = [&](i64 t) {
            const i64 at = t * call.N + first;
            Row row;
            for (int j = 0; j < INPUTS; ++j) {
                row.x[j] = call.x[j] + at;
                row.gx[j] = call.gx[j] + at;
            }
            for (int j = 0; j < OUTPUTS; ++j) row.go[j] = call.go[j] + at;
            for (int j = 0; j < STATES; ++j) {
                row.s[j] = s + j * row_length;
                row.gs[j] = gs[j];
            }
            for (int j = 0; j < KEPT; ++j) row.k[j] = kept + (j * T + t) * row_length;
            for (int j = 0; j < NEURON_VALUES; ++j) row.c[j] = values.c + j * row_length;
            for (int j = 0; j < LEARNED; ++j) row.gp[j] = gp + j * row_length;
            return row;
        };
        auto fetch_gradients = [&](i64 at, i64 count) {
            for (int j = 0; j < OUTPUTS; ++j) fetch_to_read(call.go[j] + at, count);
            for (int j = 0; j < INPUTS; ++j) fetch_to_write(call.gx[j] + at, count);
        };
        for (i64 t = 0; t < T; ++t) {
            const i64 at = t * call.N + first;
            const Row row = row_at(t);
            in_blocks(len, [&](i64 b, i64 count) {
                if (t + 1 < T)
                    for (int j = 0; j < INPUTS; ++j) fetch_to_read(call.x[j] + at + call.N + b, count);
                else
                    fetch_gradients(at + b, count);
                record_row(u, row, b, count);
            });
        }
        for (i64 t = T - 1; t >= 0; --t) {
            const i64 at = t * call.N + first;
            for (int j = 0; j < STATES; ++j)
                if (call.gs_seq[j]) add(gs[j], call.gs_seq[j] + at, len);
            const Row row = row_at(t);
            in_blocks(len, [&](i64 b, i64 count) {
                if (t)
                    fetch_gradients(at - call.N + b, count);
                else
                    for (int j = 0; j < INPUTS; ++j) fetch_to_read(call.x[j] + first + len + b, count);
                backward_row(u, row, b, count);
            });
        }
        for (int k = 0; k < LEARNED; ++k) {
            double* sum = sums + k * call.channels;
            const R* mine = gp + k * row_length;
            if (!BY_NEURON[k]) {
                *sum += total(mine, len);
                continue;
            }
            i64 channel = first / call.inner % call.channels, within = first % call.inner;
            for (i64 i = 0; i < len;) {
                if (call.inner == 1) {  // as many channels as lie side by side
                    const i64 run = call.channels - channel < len - i ? call.channels - channel : len - i;
                    add(sum + channel, mine + i, run);
                    i += run;
                    channel = 0;
                    continue;
                }
                const i64 run = call.inner - within < len - i ? call.inner - within : len - i;
                sum[channel] += total(mine + i, run);
                i += run;
                within = 0;
                if (++channel == call.channels) channel = 0;
            }
        }
    }
}

// Calls work(slab, begin, end) for each part of the layer, in parallel where that pays.
template <class Work> void for_slabs(const Call& call, i64 slabs, const Work& work) {
    i64 size = (call.N + slabs - 1) / slabs;
    size = (size + 63) / 64 * 64;
    const i64 threads = call.threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && slabs > 1)
    for (i64 slab = 0; slab < slabs; ++slab) {
        const i64 begin = slab * size, end = begin + size < call.N ? begin + size : call.N;
        if (begin < end) work(slab, begin, end);
    }
}

// How many parts: by the size of the layer alone, so that sums do not depend on the threads.
i64 slab_count(const Call& call, i64 sums) {
    i64 slabs = call.N * call.T / 16384 + 1;
    const i64 most = sums > 1 << 15 ? (1 << 21) / sums : MAX_SLABS;
    if (slabs > most) slabs = most;
    return slabs > 1 ? slabs : 1;
}

// Gradients of the learned parameters, [LEARNED, channels] in double, added to `sums`.
void backward_all(const Backward& call, double* sums) {
    const i64 count = LEARNED * call.channels, slabs = slab_count(call, count);
    double* parts = zeros(slabs * count);
    for_slabs(call, slabs, [&](i64 slab, i64 begin, i64 end) {
        backward_slab(call, parts + slab * count, begin, end);
    });
    for (i64 slab = 0; slab < slabs; ++slab)  // in this order on any number of threads
        for (i64 i = 0; i < count; ++i) sums[i] += parts[slab * count + i];
    free(parts);
}

void forward_all(const Forward& call) {
    for_slabs(call, slab_count(call, 0),
              [&](i64, i64 begin, i64 end) { forward_slab(call, begin, end); });
}

// Writes the first `count` learned parameters' gradients where they are wanted.
void write_sums(const Backward& call, const double* sums, int count) {
    for (int k = 0; k < count; ++k) {
        const double* mine = sums + k * call.channels;
        if (BY_NEURON[k]) {
            for (i64 c = 0; c < call.channels; ++c) call.gp[k][c] = (R)mine[c];
            continue;
        }
        double sum = 0;
        for (i64 c = 0; c < call.channels; ++c) sum += mine[c];
        *call.gp[k] = (R)sum;
    }
}

}  // namespace htaf_snn

using namespace htaf_snn;

extern "C" void forward(const Forward* call) { forward_all(*call); }

extern "C" void backward(const Backward* call) {
    double* sums = zeros(LEARNED * call->channels);
    backward_all(*call, sums);
    write_sums(*call, sums, LEARNED);
    free(sums);
}
