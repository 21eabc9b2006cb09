// A batch norm before the step: its statistics, its scale and shift, and its gradients.
// Included after kernel_cpu.h. The step's last three parameters are the norm's center, scale and
// shift, and its last two learned ones scale and shift. An array is [rows, channels, inner], densely.

namespace htaf_snn {

// The gradient of x through its own batch's mean and variance: gx += a + b (x - center).
HTAF_FN void correct_one(X* gx, const X* x, R a, R b, R center) {
    store(gx, R(load(gx)) + a + b * (R(load(x)) - center));
}

const i64 SIDE_BY_SIDE = 8;  // rows that are summed before the sums are written

// Adds up d = x - pivot and d d of `rows` rows of `lanes`, in double: x in float has 24 bits, so
// what cancels of the squares is below what x was rounded by.
NOINLINE void add_rows(const X* __restrict x, i64 lanes, const double* __restrict pivot,
                       double* __restrict sum, double* __restrict squares) {
#pragma omp simd
    for (i64 i = 0; i < lanes; ++i) {
        double s = 0, q = 0;
        for (i64 r = 0; r < SIDE_BY_SIDE; ++r) {
            const double d = (double)load(x + r * lanes + i) - pivot[i];
            s += d;
            q += d * d;
        }
        sum[i] += s;
        squares[i] += q;
    }
}

NOINLINE void add_run(const X* x, i64 len, double pivot, double* sum, double* squares) {
    double s = 0, q = 0;
#pragma omp simd reduction(+ : s, q)
    for (i64 i = 0; i < len; ++i) {
        const double d = (double)load(x + i) - pivot;
        s += d;
        q += d * d;
    }
    *sum += s;
    *squares += q;
}

NOINLINE void correct_lanes(X* __restrict gx, const X* __restrict x, const R* __restrict a,
                            const R* __restrict b, const R* __restrict center, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) correct_one(gx + i, x + i, a[i], b[i], center[i]);
}

NOINLINE void correct_run(X* __restrict gx, const X* __restrict x, R a, R b, R center, i64 len) {
#pragma omp simd
    for (i64 i = 0; i < len; ++i) correct_one(gx + i, x + i, a, b, center);
}

struct Shape {
    i64 rows, channels, inner, threads;
    i64 row() const { return channels * inner; }
    // Rows that are taken together where channels lie side by side, so that loops are long.
    i64 together() const { return inner > 1 || channels >= 256 ? 1 : 256 / channels; }
};

// Calls work(part, begin, end) for each part of the rows, the same on any number of threads.
template <class Work> void for_parts(const Shape& shape, i64 parts, const Work& work) {
    const i64 size = (shape.rows + parts - 1) / parts, threads = shape.threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && parts > 1)
    for (i64 part = 0; part < parts; ++part) {
        const i64 begin = part * size, end = begin + size < shape.rows ? begin + size : shape.rows;
        if (begin < end) work(part, begin, end);
    }
}

i64 part_count(const Shape& shape) {
    const i64 parts = shape.rows * shape.row() / 65536 + 1;
    return parts < shape.rows ? (parts < 64 ? parts : 64) : shape.rows;
}

// Adds to `sums`, [2, channels], those of rows begin to end.
void add_part(const X* x, const Shape& shape, double* sums, i64 begin, i64 end) {
    const i64 C = shape.channels, row = shape.row();
    if (shape.inner > 1) {
        for (i64 r = begin; r < end; ++r)
            for (i64 c = 0; c < C; ++c)
                add_run(x + r * row + c * shape.inner, shape.inner,
                        (double)load(x + c * shape.inner), sums + c, sums + C + c);
        return;
    }
    const i64 together = shape.together(), lanes = C * together;
    double* memory = zeros(3 * lanes);
    double *pivot = memory, *sum = pivot + lanes, *squares = sum + lanes;
    for (i64 i = 0; i < lanes; ++i) pivot[i] = (double)load(x + i % C);
    for (; begin + together * SIDE_BY_SIDE <= end; begin += together * SIDE_BY_SIDE)
        add_rows(x + begin * row, lanes, pivot, sum, squares);
    for (i64 i = begin * row; i < end * row; ++i) {
        const double d = (double)load(x + i) - pivot[i % C];
        sum[i % C] += d;
        squares[i % C] += d * d;
    }
    for (i64 i = 0; i < lanes; ++i) {
        sums[i % C] += sum[i];
        sums[C + i % C] += squares[i];
    }
    free(memory);
}

void correct_part(X* gx, const X* x, const Shape& shape, const R* a, const R* b, const R* center,
                  i64 begin, i64 end) {
    const i64 C = shape.channels, row = shape.row();
    if (shape.inner > 1) {
        for (i64 r = begin; r < end; ++r)
            for (i64 c = 0; c < C; ++c) {
                const i64 at = r * row + c * shape.inner;
                correct_run(gx + at, x + at, a[c], b[c], center[c], shape.inner);
            }
        return;
    }
    const i64 lanes = C * shape.together();
    R* memory = (R*)zeros(3 * lanes);
    for (i64 i = 0; i < lanes; ++i) {
        memory[i] = a[i % C];
        memory[lanes + i] = b[i % C];
        memory[2 * lanes + i] = center[i % C];
    }
    for (i64 at = begin * row; at < end * row; at += lanes) {
        const i64 len = end * row - at < lanes ? end * row - at : lanes;
        correct_lanes(gx + at, x + at, memory, memory + lanes, memory + 2 * lanes, len);
    }
    free(memory);
}

Shape shape_of(const Call& call) {
    Shape shape = {call.T * call.N / (call.channels * call.inner), call.channels, call.inner,
                   call.threads};
    return shape;
}

// Mean and biased variance of each channel of the first input, [2, channels].
void find_moments(const Call& call, double* found) {
    const Shape shape = shape_of(call);
    const X* x = call.x[0];
    const i64 C = shape.channels, parts = part_count(shape);
    double* sums = zeros(parts * 2 * C);
    for_parts(shape, parts, [&](i64 part, i64 begin, i64 end) {
        add_part(x, shape, sums + part * 2 * C, begin, end);
    });
    for (i64 part = 1; part < parts; ++part)
        for (i64 i = 0; i < 2 * C; ++i) sums[i] += sums[part * 2 * C + i];
    const double count = (double)(shape.rows * shape.inner);
    for (i64 c = 0; c < C; ++c) {
        const double d = sums[c] / count, variance = sums[C + c] / count - d * d;
        found[c] = (double)load(x + c * shape.inner) + d;
        found[C + c] = variance < 0 ? 0 : variance;
    }
    free(sums);
}

// Moves the running statistics to those of a batch, as `AveragedNorm` does.
void follow(const NormForward& call, const double* moments, double elements) {
    const double mean_of_all = 1.0 / (double)++*call.tracked;
    const double share = mean_of_all > call.momentum ? mean_of_all : call.momentum;
    for (i64 c = 0; c < call.channels; ++c) {
        const double variance = moments[call.channels + c] * (elements / (elements - 1));
        call.running_mean[c] = (R)((1 - share) * call.running_mean[c] + share * moments[c]);
        call.running_var[c] = (R)((1 - share) * call.running_var[c] + share * variance);
    }
}

// (x - center) scale + shift; what rounding took from the mean, the offset, is in the shift.
struct Scaling {
    double *rstd, *offset;
    R *center, *scale, *shift;

    Scaling(double* memory, i64 C)
        : rstd(memory), offset(memory + C), center((R*)(memory + 2 * C)), scale(center + C),
          shift(scale + C) {}
    void into(Call& call) const {
        call.parameters[PARAMETERS - 3] = center;
        call.parameters[PARAMETERS - 2] = scale;
        call.parameters[PARAMETERS - 1] = shift;
    }
};

// The gradients of weight and bias, [2, channels], become what the batch's statistics add to gx.
void correct_all(const NormBackward& call, const double* sums) {
    const Shape shape = shape_of(call);
    const i64 C = shape.channels;
    const Scaling of(call.scaling, C);
    R *a = (R*)zeros(2 * C), *b = a + C;
    for (i64 c = 0; c < C; ++c) {
        const double scale = (double)of.scale[c] / (double)call.elements;
        const double slope = -scale * of.rstd[c] * sums[c];
        a[c] = (R)(slope * of.offset[c] - scale * sums[C + c]);
        b[c] = (R)slope;
    }
    for_parts(shape, part_count(shape), [&](i64, i64 begin, i64 end) {
        correct_part(call.gx[0], call.x[0], shape, a, b, of.center, begin, end);
    });
    free(a);
}

enum Mode { BATCH, RUNNING, GIVEN };  // whose statistics: this input's, the running ones, `moments`

}  // namespace htaf_snn

extern "C" void moments(const NormForward* call) { find_moments(*call, call->moments); }

extern "C" void norm_forward(const NormForward* given) {
    NormForward call = *given;
    const i64 C = call.channels;
    double* memory = zeros(2 * C);
    const double* found = call.mode == GIVEN ? call.moments : memory;
    if (call.mode == BATCH) find_moments(call, memory);
    for (i64 c = 0; call.mode == RUNNING && c < C; ++c) {
        memory[c] = call.running_mean[c];
        memory[C + c] = call.running_var[c];
    }
    if (call.tracked) follow(call, found, (double)call.elements);
    const Scaling of(call.scaling, C);
    for (i64 c = 0; c < C; ++c) {
        of.center[c] = (R)found[c];
        of.offset[c] = of.center[c] - found[c];
        of.rstd[c] = 1.0 / ::sqrt(found[C + c] + call.eps);
        const double scale = call.weight ? of.rstd[c] * call.weight[c] : of.rstd[c];
        of.scale[c] = (R)scale;
        of.shift[c] = (R)(of.offset[c] * scale + (call.bias ? call.bias[c] : R(0)));
    }
    free(memory);
    of.into(call);
    forward_all(call);
}

extern "C" void norm_backward(const NormBackward* given) {
    NormBackward call = *given;
    const i64 C = call.channels;
    const Scaling of(call.scaling, C);
    of.into(call);
    double* sums = zeros(LEARNED * C);
    backward_all(call, sums);
    write_sums(call, sums, LEARNED - 2);
    double *g_weight = sums + (LEARNED - 2) * C, *g_bias = g_weight + C;
    for (i64 c = 0; c < C; ++c) {
        g_weight[c] = of.rstd[c] * (g_weight[c] + of.offset[c] * g_bias[c]);
        if (call.g_weight) call.g_weight[c] = (R)g_weight[c];
        if (call.g_bias) call.g_bias[c] = (R)g_bias[c];
    }
    if (call.sums)
        memcpy(call.sums, g_weight, sizeof(double) * 2 * C);
    else if (call.elements)
        correct_all(call, g_weight);
    free(sums);
}

extern "C" void correct(const NormBackward* call) { correct_all(*call, call->sums); }
