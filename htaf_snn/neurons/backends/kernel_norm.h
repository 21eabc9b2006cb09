// Batch statistics of a layer's input, and what they add to its gradient.
// Included after kernel.h. An array is [rows, channels, inner], densely.

#define NOINLINE static __attribute__((noinline))

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

double* zeros(i64 count) {
    double* made = (double*)calloc(count, sizeof(double));
    if (!made) abort();  // no memory
    return made;
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

Shape read_shape(const i64* words) {
    Shape shape = {words[0], words[1], words[2], words[3]};
    return shape;
}

}  // namespace htaf_snn

using namespace htaf_snn;

// Words: the shape, x, and where mean and variance go, [2, channels].
extern "C" void moments(const i64* words) {
    const Shape shape = read_shape(words);
    const X* x = (const X*)words[4];
    double* found = (double*)words[5];
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

// Words: the shape, x, gx, and a, b and center by channel.
extern "C" void correct(const i64* words) {
    const Shape shape = read_shape(words);
    const X* x = (const X*)words[4];
    X* gx = (X*)words[5];
    const R *a = (const R*)words[6], *b = (const R*)words[7], *center = (const R*)words[8];
    for_parts(shape, part_count(shape), [&](i64, i64 begin, i64 end) {
        correct_part(gx, x, shape, a, b, center, begin, end);
    });
}
