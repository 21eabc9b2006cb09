// A batch norm around the step's kernels on CUDA: its statistics, its scale and shift, and what its
// statistics add to the gradient of x. Included after hardware.h and the struct of a call, with WIDTH
// defined. As in kernel_cuda.h, a thread has all elements `call.period` from each other, which are of
// one channel. The five rows of `scaling` are center, scale, shift, 1 / deviation, and the offset,
// center - mean, that rounding the mean left.

namespace htaf_snn {

const int TOGETHER = 8;  // elements of a thread that are in flight at once

HTAF_FN R* row(const GridNorm& call, double* rows, int k) { return (R*)(rows + k * call.channels); }
HTAF_FN R first_of(const GridNorm& call, i64 c) { return number(call.x[c * call.inner]); }

// How many elements the thread of element i has.
HTAF_FN i64 count_of(const GridNorm& call, i64 i) { return (call.total - 1 - i) / call.period + 1; }

}  // namespace htaf_snn

// Each thread leaves the mean of its elements, from the first of their channel, and their squares
// about it: sums about the mean so far, which is moved once for all that are in flight.
extern "C" __global__ void moments(const htaf_snn::GridNorm call) {
    using namespace htaf_snn;
    const i64 i = thread_number() * WIDTH, period = call.period;
    if (i == 0 && call.tracked) ++*call.tracked;
    if (i >= period) return;
    R pivot[WIDTH], count = R(0);
    Pack<R> mean, squares = {};
    EACH(w, WIDTH) pivot[w] = first_of(call, channel_of(call, i + w));
    const X* from = call.x + i;
    for (int left = (int)count_of(call, i); left > 0; left -= TOGETHER, from += TOGETHER * period) {
        Pack<X> x[TOGETHER];
        EACH(k, TOGETHER) if (k < left) x[k] = read(from + k * period);
        R sum[WIDTH] = {}, square[WIDTH] = {};
        if (count == R(0)) EACH(w, WIDTH) mean.of[w] = number(x[0].of[w]) - pivot[w];
        EACH(k, TOGETHER) if (k < left) EACH(w, WIDTH) {
            const R d = number(x[k].of[w]) - pivot[w] - mean.of[w];
            sum[w] += d;
            square[w] += d * d;
        }
        count += R(left < TOGETHER ? left : TOGETHER);
        EACH(w, WIDTH) {
            const R step = sum[w] / count;
            mean.of[w] += step;
            squares.of[w] += square[w] - sum[w] * step;
        }
    }
    *(Pack<R>*)(call.table + i) = mean;
    *(Pack<R>*)(call.table + period + i) = squares;
}

// One block for each channel: its statistics, the running ones as `AveragedNorm` moves them, and
// what the step reads.
extern "C" __global__ void normalize(const htaf_snn::GridNorm call) {
    using namespace htaf_snn;
    const i64 c = blockIdx.x, inner = call.inner, period = call.period;
    const double elements = (double)(call.total / call.channels);
    double mean, variance;
    if (call.table) {
        double sum = 0, square = 0, within = 0;
        for (i64 e = threadIdx.x; e < period / call.channels; e += blockDim.x) {
            const i64 at = (e / inner * call.channels + c) * inner + e % inner;
            const double d = call.table[at], many = (double)count_of(call, at);
            sum += many * d;
            square += many * d * d;
            within += call.table[period + at];
        }
        const double d = block_sum(sum) / elements;
        mean = first_of(call, c) + d;
        variance = (block_sum(square) + block_sum(within)) / elements - d * d;
        variance = variance < 0 ? 0 : variance;
    } else {
        mean = call.running_mean[c];
        variance = call.running_var[c];
    }
    if (threadIdx.x) return;
    if (call.tracked) {
        const double all = 1.0 / (double)*call.tracked, share = all > call.momentum ? all : call.momentum;
        const double unbiased = variance * (elements / (elements - 1));
        call.running_mean[c] = R((1 - share) * call.running_mean[c] + share * mean);
        call.running_var[c] = R((1 - share) * call.running_var[c] + share * unbiased);
    }
    const R center = R(mean);
    const double rstd = 1.0 / ::sqrt(variance + call.eps), offset = (double)center - mean;
    const double scale = call.weight ? rstd * call.weight[c] : rstd;
    const double bias = call.bias ? call.bias[c] : R(0);
    const double made[] = {(double)center, scale, offset * scale + bias, rstd, offset};
    EACH(k, 5) row(call, call.scaling, k)[c] = R(made[k]);
}

// The gradients of weight and bias, and gx += a + b (x - center) for the batch's statistics.
extern "C" __global__ void correct(const htaf_snn::GridNorm call) {
    using namespace htaf_snn;
    const i64 i = thread_number() * WIDTH, period = call.period;
    if (i >= period) return;
    R a[WIDTH], b[WIDTH], center[WIDTH];
    EACH(w, WIDTH) {
        const i64 c = channel_of(call, i + w);
        R of[5];
        EACH(k, 5) of[k] = row(call, call.scaling, k)[c];
        const R g_bias = row(call, call.sums, 1)[c];
        const R g_weight = of[3] * (row(call, call.sums, 0)[c] + of[4] * g_bias);
        if (i + w == c * call.inner) {
            if (call.g_weight) call.g_weight[c] = g_weight;
            if (call.g_bias) call.g_bias[c] = g_bias;
        }
        const R share = of[1] * R(call.channels) / R(call.total);
        center[w] = of[0];
        b[w] = -share * of[3] * g_weight;
        a[w] = b[w] * of[4] - share * g_bias;
    }
    if (!call.gx) return;
    const X* from = call.x + i;
    X* to = call.gx + i;
    for (int left = (int)count_of(call, i); left > 0; left -= TOGETHER) {
        Pack<X> x[TOGETHER], g[TOGETHER];
        EACH(k, TOGETHER) if (k < left) {
            x[k] = read(from + k * period);
            g[k] = read(to + k * period);
        }
        EACH(k, TOGETHER) if (k < left) {
            EACH(w, WIDTH) {
                const R d = number(x[k].of[w]) - center[w];
                round_to(number(g[k].of[w]) + (a[w] + b[w] * d), g[k].of[w]);
            }
            *(Pack<X>*)(to + k * period) = g[k];
        }
        from += TOGETHER * period;
        to += TOGETHER * period;
    }
}
